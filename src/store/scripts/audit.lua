-- Writes one audit event that stands alone (I10).
--
-- Flags: allow-oom; a refusal is written down whatever Redis has room for.
-- Argument: token (of this event alone), remembered (ms; for how long the same event may be sent again), audit_event.
-- Invariant: an event that is sent again is written once.

-- If the key exists, the event was sent again because its answer was lost: it is written already.
local written = P .. 'audit:written:' .. a.token
if redis.call('EXISTS', written) == 0 then
  audit(a.audit_event)
  redis.call('SET', written, 1, 'PX', a.remembered)
end
