-- Accepts the revocation of one grant, or of all that a selector matched (I1, I3, I5, I10). All or nothing: the broker
-- has read the lists and counted, and the script reads the state of each grant again.
--
-- Flags: allow-oom; taking access away must not wait for memory.
-- Argument: caller, request_id, hash, grants [ids], selected (whether a selector matched them: then grants that have
-- ended meanwhile are left out), left (how many more match and stay, as far as the caller may know), job, job_body, by,
-- audit_event (the script adds grant and target), retention (ms), request_life (ms).
-- Returns {'accepted' | 'replayed', job, grant or '', damaged ..}, {'reused', job}, or {'unknown', grant} where there is
-- no such grant. `damaged`: targets that the script could not read.
-- Invariant: the job is over only when none of its grants is live or REVOKING. A grant that another request is revoking
-- already still has its access, so the job waits for it; `matched` counts only those that this request ends.

local answer = replay()
if answer then return answer end

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

local over = next(live) == nil and next(going) == nil
make_job(a.job, a.job_body, 'REVOKE', rows, 'REVOKE', over)
redis.call('HSET', job_key(a.job), 'matched', matched, 'left', a.left)
remember_request(a.job, a.selected and '' or a.grants[1], over)
for grant in pairs(live) do revoke_grant(grant, 'REVOKED', a.by, a.job) end
for grant in pairs(going) do redis.call('HSET', grant_key(grant), 'job', a.job) end
for _, row in ipairs(rows) do
  -- Also if all of its grants are already REVOKING: a caller that asks again does not wait for a backoff.
  if not over then desired_state_changed(row.target, true) end
  for _, grant in ipairs(row.grants) do audit_about(a.audit_event, grant, row.target) end
end
if #rows == 0 then audit(a.audit_event) end
return { 'accepted', a.job, a.selected and '' or a.grants[1], unpack(damaged) }
