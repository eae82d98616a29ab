-- Moves entries that cannot be read as events out of the audit log, so that the chain can continue behind them (I10).
-- The script keeps all their bytes in `audit:damaged`, and appends an event for each that reports it.
--
-- Flags: allow-oom; as in seal_begin.
-- Argument: token, after (the chain's last sequence number, '' for none), rows [{id, sequence (its place in the audit
-- log), problem, audit_event}] in the audit log's order.
-- Returns {'aside'}, also when it is sent again, or {'moved'} if the lease or the chain's end is another one.
-- Invariant: each entry that leaves the audit log is in `audit:damaged`, and one event reports it.

local key = P .. 'audit:seal'
local seal = fields(redis.call('HGETALL', key))
if seal.token ~= a.token or (seal.sequence or '') ~= a.after then return { 'moved' } end
for _, row in ipairs(a.rows) do
  local entry = redis.call('XRANGE', P .. 'audit', row.id, row.id)[1]
  if entry then
    local kept = entry[2]
    -- Lua cannot pass so many arguments in one call. So the fields and values are stored packed, in one field.
    if #kept > 4000 then kept = { 'cmsgpack', cmsgpack.pack(kept) } end
    redis.call('XADD', P .. 'audit:damaged', '*', 'was', row.id, 'place', row.sequence, 'problem', row.problem,
      unpack(kept))
    redis.call('HSET', key, 'aside', row.sequence)
    audit(row.audit_event)
    redis.call('XDEL', P .. 'audit', row.id)
  end
end
return { 'aside' }
