-- Takes the sealer's lease, or renews it: one replica at a time seals the audit log.
--
-- Flags: allow-oom; the audit log is exported and trimmed even if Redis is full.
-- Argument: token, lease (ms), count.
-- Returns {0, {}, {}} if another replica has the lease. Else {1, seal, entries}: the sealer's record, as a flat list of
-- fields and values, and the first `count` entries that are not sealed, both read in one step.

local key = P .. 'audit:seal'
local seal = redis.call('HGETALL', key)
local held = fields(seal)
-- A lease that ends later than any lease can comes from a clock that was ahead, for example before a failover.
local ends = number(held.lease_end)
if (held.token or '') ~= a.token and ends > now and ends <= now + a.lease then return { 0, {}, {} } end
redis.call('HSET', key, 'token', a.token, 'lease_end', now + a.lease)
return { 1, seal, redis.call('XRANGE', P .. 'audit', '-', '+', 'COUNT', a.count) }
