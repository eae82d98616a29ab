-- Moves events that have been hashed and exported to those that are sealed, and draws the bounds of what is kept.
--
-- Flags: allow-oom; as in seal_begin.
-- Argument: token, lease (ms), after (the chain's last sequence number, '' for none), rows [{id, sequence, time (ms),
-- event, previous, hash}] in the trail's order, age (ms) and count of what is kept.
-- Returns {'sealed'}, or {'moved'} where the lease or the chain's end is another one.

local key = P .. 'audit:seal'
local seal = fields(redis.call('HGETALL', key))
if seal.token ~= a.token or (seal.sequence or '') ~= a.after then return { 'moved' } end
for _, row in ipairs(a.rows) do
  redis.call('XADD', P .. 'audit:sealed', row.id, 'v', 1, 'sequence', row.sequence, 'time', row.time, 'event', row.event,
    'previous', row.previous, 'hash', row.hash)
  redis.call('XDEL', P .. 'audit', row.id)
  redis.call('HSET', key, 'sequence', row.sequence, 'hash', row.hash)
end
redis.call('HSET', key, 'lease_end', now + a.lease)
redis.call('XTRIM', P .. 'audit:sealed', 'MINID', '~', string.format('%d', math.max(0, now - a.age)))
redis.call('XTRIM', P .. 'audit:sealed', 'MAXLEN', '~', string.format('%d', a.count))
-- What is missing before this has been trimmed; what is missing behind it somebody took out.
local oldest = redis.call('XRANGE', P .. 'audit:sealed', '-', '+', 'COUNT', 1)[1]
if oldest then
  redis.call('HSET', key, 'first', fields(oldest[2]).sequence)
else
  redis.call('HDEL', key, 'first')
end
return { 'sealed' }
