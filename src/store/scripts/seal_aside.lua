-- Moves entries that cannot be read as events out of the trail, so that it is sealed on behind them (I10). All their bytes
-- are kept in `audit:damaged`, and for each an event of the trail tells of it.
--
-- Flags: allow-oom; as in seal_begin.
-- Argument: token, after (the chain's last sequence number, '' for none), rows [{id, sequence (its place in the trail),
-- problem, audit_event}] in the trail's order.
-- Returns {'aside'}, also when it is sent again, or {'moved'} where the lease or the chain's end is another one.

local key = P .. 'audit:seal'
local seal = fields(redis.call('HGETALL', key))
if seal.token ~= a.token or (seal.sequence or '') ~= a.after then return { 'moved' } end
for _, row in ipairs(a.rows) do
  local entry = redis.call('XRANGE', P .. 'audit', row.id, row.id)[1]
  if entry then
    local kept = entry[2]
    -- More than Lua can hand over at once.
    if #kept > 4000 then kept = { 'cmsgpack', cmsgpack.pack(kept) } end
    redis.call('XADD', P .. 'audit:damaged', '*', 'was', row.id, 'place', row.sequence, 'problem', row.problem,
      unpack(kept))
    redis.call('HSET', key, 'aside', row.sequence)
    audit(row.audit_event)
    redis.call('XDEL', P .. 'audit', row.id)
  end
end
return { 'aside' }
