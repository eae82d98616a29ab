-- Takes the sealer's lease, or renews it: one replica at a time seals the audit trail.
--
-- Flags: allow-oom; the trail is exported, and what has been is dropped, whatever Redis has room for.
-- Argument: token, lease (ms), count.
-- Returns {{'taken'}, {}} where somebody else has it, or {{'held', sequence, hash}, events} with the chain's last event, ''
-- and '' where there is none, and the first `count` events that are not sealed: both of one moment.

local key = P .. 'audit:seal'
local seal = fields(redis.call('HGETALL', key))
-- One that ends later than any lease can is of a clock that was ahead: before a failover, say.
local ends = number(seal.lease_end)
if (seal.token or '') ~= a.token and ends > now and ends <= now + a.lease then return { { 'taken' }, {} } end
redis.call('HSET', key, 'token', a.token, 'lease_end', now + a.lease)
return { { 'held', seal.sequence or '', seal.hash or '' }, redis.call('XRANGE', P .. 'audit', '-', '+', 'COUNT', a.count) }
