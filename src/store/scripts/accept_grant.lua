-- Accepts a grant: idempotency, desired state, queue, job and audit event in one step (I1, I3, I10).
--
-- Flags: none, so that grants are refused first when Redis reaches its memory limit.
-- Argument: caller, request_id, hash, grant, job, target, uid, grant_body, job_body, ttl (ms) or expire (ms) or
-- neither, wish (the desired state: principal, cluster and access as text: two grants of the same have the same),
-- external (the list of the caller's grant of this external key; '' for none), lists (names of lists that it belongs
-- to), principal (JSON), audit_event (what was there already, grant and job, is put in here), gone_event (of a grant
-- that ends with its cluster; grant and action are put in here), retention (ms), request_life (ms).
-- Returns {'accepted' | 'replayed', job, grant}, {'reused', job}, or {'key_in_use', grant} where the caller's external
-- key names a live grant of something else.

local answer = replay()
if answer then return answer end

-- Another cluster under the same id ends the old one's grants (design §5.13). What we know of effects went with the old
-- one, if it was made there: a PUT by the same id may as well have met the new one. So each is open, and put right or
-- deleted as the desired state says. Clearing the token makes a pass that is still at the old one record nothing. A
-- caller that still remembers the old cluster does not end the new one's grants: no cluster comes back.
local key = target_key(a.target)
local uid = redis.call('HGET', key, 'uid')
local replaced = uid and uid ~= '' and a.uid ~= '' and uid ~= a.uid
  and redis.call('HEXISTS', key, 'u:' .. a.uid) == 0

-- The caller's grant of this external key, unless it is about to end with its cluster.
local named = a.external ~= '' and redis.call('ZRANGE', grant_list('live', a.external), 0, 0)[1]
local of = named and fields(redis.call('HGETALL', grant_key(named))) or nil
if of and is_live(of.state) and not (replaced and of.target == a.target) then
  if of.wish ~= a.wish then return { 'key_in_use', named } end
  local row = { target = a.target, grants = { named }, principal = principal_of(named) }
  local moved = move_end(named, asked_end())
  local job = of.job
  local over = redis.call('HEXISTS', job_key(job), 'finished') == 1
  -- Whoever asks again and again for what is so already leaves no new job behind each time.
  if moved or redis.call('EXISTS', job_key(job)) == 0 then
    job, over = a.job, not moved and of.state == 'ACTIVE'
    -- It waits for the end to be written also where the grant is pending still: the pass that is about to make it
    -- active may have loaded the old one.
    make_job(job, a.job_body, 'GRANT', { row }, 'EXTEND', over)
    redis.call('HSET', grant_key(named), 'job', job)
    if not over then desired_state_changed(a.target, false) end
  end
  remember_request(job, named, over)
  audit_about(a.audit_event, named, a.target, job)
  return { 'accepted', job, named }
end

if replaced then
  local gone = cjson.encode({ reason = 'CLUSTER_GONE', code = 9, retryable = false, azure_correlation_id = '',
    message = 'another cluster stands under the same id; the grant ended with the old one' })
  local record = redis.call('HGETALL', key)
  local was = fields(record)
  local settled = calls_settle(was, number(was.settle))
  local ended = {}
  for i = 1, #record, 2 do
    local grant = string.match(record[i], '^g:(.*)$')
    if grant then
      local held = fields(redis.call('HGETALL', grant_key(grant)))
      local ending = held.state == 'REVOKING' and held.ending or 'REVOKED'
      ended[grant] = { active = held.active == '1', failed = ending == 'FAILED' and held.error or nil }
      if not ended[grant].failed then redis.call('HSET', grant_key(grant), 'error', gone) end
      finish_grant(grant, ending)
      local event = cjson.decode(a.gone_event)
      event.grant, event.action = grant, 'grant/' .. string.lower(ending)
      audit(cjson.encode(event))
    end
    local name = string.match(record[i], '^e:(.*)$')
    -- What is gone for certain is gone from every cluster, and nobody has to ask the new one about it.
    local is_gone = name and not was['i:' .. name] and not was['d:' .. name]
      and cjson.decode(record[i + 1]).known == 'absent'
    if name and not is_gone then
      local call, token = string.match(was['i:' .. name] or 'delete:', '^(%a+):(.*)$')
      -- What is known of it is known of the cluster that was there before.
      redis.call('HSET', key, 'i:' .. name, call .. ':', 'm:' .. name, 1)
      if token ~= '' then may_land_until(key, name, call, settled) end
    end
  end
  for i = 1, #record, 2 do
    local job = string.match(record[i], '^j:(.*)$')
    if job then
      local waiting = cjson.decode(record[i + 1])
      local of = ended[waiting.grants[1]] or {}
      local gives = waiting.kind == 'GRANT' or waiting.kind == 'EXTEND'
      if gives and of.failed then
        finish_job_target(job, a.target, 'FAILED', of.failed)
      elseif gives and not (of.active and waiting.kind == 'GRANT') then
        finish_job_target(job, a.target, 'SUPERSEDED', gone)
      else
        finish_job_target(job, a.target, 'SUCCEEDED', '')
      end
    end
  end
  -- The old one's backoff went with it, too.
  redis.call('HSET', key, 'token', '', 'uid', a.uid, 'u:' .. uid, '')
  clear_waits(a.target)
  -- Assignments that no grant calls for any more are deleted, whatever else the new cluster's grants call for.
  enqueue(a.target, 'deletes')
  effects_changed(a.target)
end

local expire = asked_end()
redis.call('HSET', grant_key(a.grant), 'v', 1, 'body', a.grant_body, 'wish', a.wish, 'target', a.target,
  'state', 'PENDING', 'active', 0, 'created', now, 'updated', now, 'expire', expire, 'job', a.job)
if expire ~= '' then redis.call('ZADD', P .. 'expiries', expire, a.grant) end
redis.call('HSET', grant_key(a.grant), 'lists', cjson.encode(a.lists))
for _, name in ipairs(a.lists) do redis.call('ZADD', grant_list('live', name), 0, a.grant) end

redis.call('HSET', key, 'v', 1, 'g:' .. a.grant, '')
if a.uid ~= '' and (uid or '') == '' then redis.call('HSET', key, 'uid', a.uid) end
make_job(a.job, a.job_body, 'GRANT', { { target = a.target, grants = { a.grant }, principal = a.principal } }, 'GRANT',
  false)
remember_request(a.job, a.grant, false)
desired_state_changed(a.target, false)
audit(a.audit_event)
return { 'accepted', a.job, a.grant }
