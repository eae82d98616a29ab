-- Moves events that have been hashed and exported to those that are sealed, and draws the bounds of what is kept.
--
-- Flags: allow-oom; as in seal_begin.
-- Argument: token, lease (ms), after (the chain's last sequence number, '' for none), rows [{id, sequence, time (ms),
-- event, previous, hash}] in the audit log's order, age (ms) and count of what is kept.
-- Returns {'sealed'}, or {'moved'} where the lease or the chain's end is another one.

local key = P .. 'audit:seal'
local seal = fields(redis.call('HGETALL', key))
if seal.token ~= a.token or (seal.sequence or '') ~= a.after then return { 'moved' } end
for _, row in ipairs(a.rows) do
  local function place(id)
    return redis.pcall('XADD', P .. 'audit:sealed', id, 'v', 1, 'sequence', row.sequence, 'time', row.time, 'event',
      row.event, 'previous', row.previous, 'hash', row.hash)
  end
  -- Keeps the entry's id, unless `audit:sealed` has a later one already, for example from a clock that was ahead.
  local placed = place(row.id)
  if placed.err then placed = place('*') end
  if placed.err then return placed end
  redis.call('XDEL', P .. 'audit', row.id)
  redis.call('HSET', key, 'sequence', row.sequence, 'hash', row.hash)
end
redis.call('HSET', key, 'lease_end', now + a.lease)
redis.call('XTRIM', P .. 'audit:sealed', 'MINID', '~', string.format('%d', math.max(0, now - a.age)))
redis.call('XTRIM', P .. 'audit:sealed', 'MAXLEN', '~', string.format('%d', a.count))
-- Events missing before `first` were trimmed. Events missing behind it were removed by hand.
local oldest = redis.call('XRANGE', P .. 'audit:sealed', '-', '+', 'COUNT', 10)
if #oldest == 0 then redis.call('HDEL', key, 'first') end
for _, entry in ipairs(oldest) do
  -- A damaged entry may have no sequence number.
  local sequence = fields(entry[2]).sequence
  if sequence then
    redis.call('HSET', key, 'first', sequence)
    break
  end
end
return { 'sealed' }
