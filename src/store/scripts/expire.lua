-- Ends a grant whose time is up (I6, I10). Checks the grant's own time, which an extension moves.
--
-- Flags: allow-oom.
-- Argument: grant, job, job_body, own_now (ms, the caller's clock), audit_event (the target is put in
-- here), retention, request_life.
-- Returns {'expired'}, {'not_due'} where either clock says that the time is not up, or {'over'} where there is
-- nothing to end.

local held = redis.call('HMGET', grant_key(a.grant), 'state', 'target', 'expire')
local state, target, expire = held[1], held[2], tonumber(held[3] or '')
if not is_live(state) or not expire then
  redis.call('ZREM', P .. 'expiries', a.grant)
  return { 'over' }
end
if expire > now or expire > a.own_now then return { 'not_due' } end
-- Reads before the first write: a damaged target stops the script here, with nothing half done.
redis.call('HLEN', target_key(target))

local row = { target = target, grants = { a.grant }, principal = principal_of(a.grant) }
revoke_grant(a.grant, 'EXPIRED', 'expiry', a.job)
make_job(a.job, a.job_body, 'EXPIRE', { row }, 'EXPIRE', false)
desired_state_changed(target, true)
audit_about(a.audit_event, a.grant, target)
return { 'expired' }
