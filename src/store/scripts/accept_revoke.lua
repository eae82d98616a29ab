-- Accepts the revocation of one grant, or of all that a selector matched (I1, I3, I5, I10). All or nothing: the broker
-- has read the lists and counted, and the script reads the state of each grant again.
--
-- Flags: allow-oom; taking access away must not wait for memory.
-- Argument: caller, request_id, hash, grants [ids], selected (whether a selector matched them: then grants that have
-- ended meanwhile are left out), left (how many more match and stay, as far as the caller may know), shows_job (whether
-- the caller may see the job that ended the grant), job, job_body, by, audit_event (the script adds grant and target),
-- retention (ms), request_life (ms).
-- Returns {'accepted' | 'replayed', job, grant or '', damaged ..}, {'unchanged', job, grant or ''}, {'reused', job}, or
-- {'unknown', grant} where there is no such grant. `damaged`: targets that the script could not read. `unchanged`: the
-- request changes nothing, and is answered with a job from before; then the script writes only a request record.
-- Invariant: the job is over only when none of its grants is live or REVOKING. A grant that another request is revoking
-- already still has its access, so the job waits for it; `matched` counts only those that this request ends.

local answer = replay()
if answer then return answer end

-- Whether a job from before answers for a grant in this state: it is about this target alone, and is over exactly if the
-- grant has ended.
local function answers_for(state, job)
  if not job then return false end
  local of = redis.call('HMGET', job_key(job), 'kind', 'total', 'state', 'finished')
  if of[2] ~= '1' or (of[1] ~= 'REVOKE' and of[1] ~= 'EXPIRE') then return false end
  if state == 'REVOKING' then return not of[4] end
  return of[3] == 'SUCCEEDED'
end

-- In a grant's record: the job with which this caller's revocation was answered when it had nothing to end.
local again = 'again:' .. a.caller
local named = not a.selected and a.grants[1] or nil
if named then
  local held = redis.call('HMGET', grant_key(named), 'state', 'target', 'job', again)
  local state = held[1]
  if state and not is_live(state) then
    local job = a.shows_job and answers_for(state, held[3]) and held[3]
      or answers_for(state, held[4]) and held[4]
    if job then
      if state == 'REVOKING' then
        redis.call('HLEN', target_key(held[2]))
        -- A caller that asks again does not wait for a backoff.
        desired_state_changed(held[2], true)
      end
      remember_idle(job, named)
      return { 'unchanged', job, named }
    end
  end
end

local live, going, rows, row_of, matched = {}, {}, {}, {}, 0
for _, grant in ipairs(a.grants) do
  local held = redis.call('HMGET', grant_key(grant), 'state', 'target')
  local state, target = held[1], held[2]
  if not state and not a.selected then return { 'unknown', grant } end
  if is_live(state) or state == 'REVOKING' or (state and not a.selected) then
    if is_live(state) then
      live[grant] = target
      matched = matched + 1
    elseif state == 'REVOKING' then
      going[grant] = target
    end
    if not row_of[target] then
      row_of[target] = { target = target, grants = {}, principal = principal_of(grant) }
      table.insert(rows, row_of[target])
    end
    table.insert(row_of[target].grants, grant)
  end
end

-- Reads before the first write. If the request names a grant, a damaged target stops the script here, with nothing half
-- done. If a selector matched the grants, the script skips a damaged target, counts its grants as left, and ends the
-- others.
local sound = {}
for _, row in ipairs(rows) do
  if not a.selected then
    redis.call('HLEN', target_key(row.target))
    table.insert(sound, row)
  elseif try(target_key(row.target), redis.call, 'HLEN', target_key(row.target)) then
    table.insert(sound, row)
  else
    a.left = a.left + #row.grants
    for _, grant in ipairs(row.grants) do
      if live[grant] then matched = matched - 1 end
      live[grant], going[grant] = nil, nil
    end
  end
end
if #sound == 0 and #damaged > 0 then return redis.error_reply('WRONGTYPE ' .. damaged[1]) end
rows = sound

-- The caller's last revocation that matched nothing answers for the next one, too.
local nothing_key = P .. 'nothing:' .. a.caller
if #rows == 0 and a.left == 0 then
  local job = redis.call('GET', nothing_key)
  if job and redis.call('EXISTS', job_key(job)) == 1 then
    remember_idle(job, '')
    local event = cjson.decode(a.audit_event)
    event.job = job
    audit(cjson.encode(event))
    return { 'unchanged', job, '' }
  end
  redis.call('SET', nothing_key, a.job, 'PX', a.request_life)
end

local over = next(live) == nil and next(going) == nil
make_job(a.job, a.job_body, 'REVOKE', rows, 'REVOKE', over)
redis.call('HSET', job_key(a.job), 'matched', matched, 'left', a.left)
remember_request(a.job, a.selected and '' or a.grants[1], over)
for grant in pairs(live) do revoke_grant(grant, 'REVOKED', a.by, a.job) end
for grant in pairs(going) do redis.call('HSET', grant_key(grant), 'job', a.job) end
if named and not live[named] then redis.call('HSET', grant_key(named), again, a.job) end
for _, row in ipairs(rows) do
  -- Also if all of its grants are already REVOKING: a caller that asks again does not wait for a backoff.
  if not over then desired_state_changed(row.target, true) end
  for _, grant in ipairs(row.grants) do audit_about(a.audit_event, grant, row.target) end
end
if #rows == 0 then audit(a.audit_event) end
return { 'accepted', a.job, a.selected and '' or a.grants[1], unpack(damaged) }
