-- Lengthens a lease; the deadlines of its open intents, which count from the lease's end, move with it (I4).
--
-- Flags: allow-oom.
-- Argument: target, token, lease (ms).
-- Returns {'renewed', lease_end}, or {'lost'}.

local key = target_key(a.target)
if redis.call('HGET', key, 'token') ~= a.token then return { 'lost' } end
local lease_end = now + a.lease
redis.call('HSET', key, 'lease_end', lease_end, 'lease', a.lease)
due_at('lease', a.target, lease_end)
return { 'renewed', lease_end }
