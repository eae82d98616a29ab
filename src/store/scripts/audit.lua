-- Writes one audit event that stands alone (I10).
--
-- Flags: allow-oom; a refusal is written down whatever Redis has room for. The trail's length is bounded.
-- Argument: audit_event, audit_length.

audit(a.audit_event)
