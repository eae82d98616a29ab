-- Accepts the revocation of one grant (I1, I3, I5, I10).
--
-- Flags: allow-oom; taking access away must not wait for memory.
-- Argument: caller, request_id, hash, grant, job, job_body, by, audit_event, audit_length, retention (ms),
-- request_life (ms).
-- Returns {'accepted' | 'replayed', job, grant}, {'reused', job}, or {'unknown', grant} where there is no such grant.

local answer = replay()
if answer then return answer end

local held = redis.call('HMGET', grant_key(a.grant), 'state', 'target')
local state, target = held[1], held[2]
if not state then return { 'unknown', a.grant } end

local over = state == 'ENDED'
make_job(a.job, a.job_body, target, { a.grant }, 'REVOKE', over)
remember_request(a.job, a.grant, over)
if not over then
  if state == 'REVOKING' then
    redis.call('HSET', grant_key(a.grant), 'job', a.job)
  else
    revoke_grant(a.grant, 'REVOKED', a.by, a.job)
  end
  -- Also where it is going already: whoever asks again does not wait for a backoff.
  wish_changed(target, 'deletes')
end
audit(a.audit_event)
return { 'accepted', a.job, a.grant }
