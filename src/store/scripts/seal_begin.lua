-- Takes the sealer's lease, or renews it: one replica at a time seals the audit trail.
--
-- Flags: allow-oom; the trail is exported, and what has been is dropped, whatever Redis has room for.
-- Argument: token, lease (ms).
-- Returns {'taken'} where somebody else has it, or {'held', sequence, hash} with the chain's last event; '' and '' where
-- there is none.

local key = P .. 'audit:seal'
local seal = fields(redis.call('HGETALL', key))
if (seal.token or '') ~= a.token and number(seal.lease_end) > now then return { 'taken' } end
redis.call('HSET', key, 'token', a.token, 'lease_end', now + a.lease)
return { 'held', seal.sequence or '', seal.hash or '' }
