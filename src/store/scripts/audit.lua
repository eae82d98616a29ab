-- Writes one audit event that stands alone (I10).
--
-- Flags: allow-oom; a refusal is written down whatever Redis has room for.
-- Argument: token (of this event alone), remembered (ms: for so long the same may come again), audit_event.

-- Sent again, because the answer was lost: it is written down.
local written = P .. 'audit:written:' .. a.token
if redis.call('EXISTS', written) == 0 then
  audit(a.audit_event)
  redis.call('SET', written, 1, 'PX', a.remembered)
end
