-- Accepts a later end of a live grant (I1, I3, I10).
--
-- Flags: none, so that it is refused with grants when Redis reaches its memory limit.
-- Argument: caller, request_id, hash, grant, job, job_body, ttl (ms) or expire (ms), shows_job (whether the caller may
-- see the grant's last job), audit_event (grant, target and job are put in here), retention (ms), request_life (ms).
-- Returns {'accepted' | 'replayed', job, grant}, {'reused', job}, {'unknown', grant} where there is no such grant, or
-- {'ended', grant} where it is live no more.

local answer = replay()
if answer then return answer end

local held = redis.call('HMGET', grant_key(a.grant), 'state', 'target')
local state, target = held[1], held[2]
if not state then return { 'unknown', a.grant } end
if not is_live(state) then return { 'ended', a.grant } end

local row = { target = target, grants = { a.grant }, principal = principal_of(a.grant) }
-- An earlier extension to the same end may not be written yet: then this one waits for that.
local moved = move_end(a.grant, asked_end())
local awaited = is_awaited(target, a.grant)

-- Whether the grant's last job says when its end, as it is, is written: then there is no new one.
local function is_enough(job)
  local of = redis.call('HMGET', job_key(job), 'kind', 'total', 'state', 'finished')
  if of[2] ~= '1' or (of[1] ~= 'GRANT' and of[1] ~= 'EXTEND') then return false end
  if not of[4] then return true end
  return of[3] == 'SUCCEEDED' and state == 'ACTIVE' and not awaited
end
local before = redis.call('HGET', grant_key(a.grant), 'job')
if not moved and a.shows_job and is_enough(before) then
  remember_request(before, a.grant, redis.call('HEXISTS', job_key(before), 'finished') == 1)
  audit_about(a.audit_event, a.grant, target, before)
  return { 'accepted', before, a.grant }
end

local over = state == 'ACTIVE' and not moved and not awaited
make_job(a.job, a.job_body, 'EXTEND', { row }, 'EXTEND', over)
remember_request(a.job, a.grant, over)
if not over then
  redis.call('HSET', grant_key(a.grant), 'job', a.job)
  desired_state_changed(target, false)
end
audit_about(a.audit_event, a.grant, target)
return { 'accepted', a.job, a.grant }
