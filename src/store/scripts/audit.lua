-- Writes one audit event that stands alone (I10).
--
-- Flags: allow-oom; a refusal is written down whatever Redis has room for.
-- Argument: audit_event.

audit(a.audit_event)
