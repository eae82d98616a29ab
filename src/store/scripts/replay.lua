-- Looks whether a request was accepted before, and keeps its record, its job and its grant alive (I3).
--
-- Flags: allow-oom; what was accepted is answered whatever Redis has room for.
-- Argument: caller, request_id, hash, request_life (ms).
-- Returns {'replayed', job, grant}, {'reused', job}, or {'new'}.

return replay() or { 'new' }
