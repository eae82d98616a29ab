-- Takes the sealer's lease, or renews it: one replica at a time seals the audit trail.
--
-- Flags: allow-oom; the trail is exported, and what has been is dropped, whatever Redis has room for.
-- Argument: token, lease (ms), count.
-- Returns {0, {}, {}} where somebody else has it, or {1, seal, entries} with the sealer's record, a flat list of fields and
-- values, and the first `count` entries that are not sealed: both of one moment.

local key = P .. 'audit:seal'
local seal = redis.call('HGETALL', key)
local held = fields(seal)
-- One that ends later than any lease can is of a clock that was ahead: before a failover, say.
local ends = number(held.lease_end)
if (held.token or '') ~= a.token and ends > now and ends <= now + a.lease then return { 0, {}, {} } end
redis.call('HSET', key, 'token', a.token, 'lease_end', now + a.lease)
return { 1, seal, redis.call('XRANGE', P .. 'audit', '-', '+', 'COUNT', a.count) }
