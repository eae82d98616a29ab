-- Accepts a grant: idempotency, wish, queue, job and audit event in one step (I1, I3, I10).
--
-- Flags: none, so that grants are refused first when Redis reaches its memory limit.
-- Argument: caller, request_id, hash, grant, job, target, uid, grant_body, job_body, ttl (ms) or expire (ms) or
-- neither, audit_event, gone_event (of a grant that ends with its cluster; grant and action are put in here),
-- audit_length, retention (ms), request_life (ms).
-- Returns {'accepted' | 'replayed', job, grant} or {'reused', job}.

local answer = replay()
if answer then return answer end

-- Another cluster under the same id ends the old one's grants (design §5.13). What we know of effects went with the
-- old one, if it was made there: a PUT by the same id may as well have met the new one. So each is open, and put
-- right or deleted as the wishes say. Clearing the token makes a pass that is still at the old one record nothing.
-- A caller that still remembers the old cluster does not end the new one's grants: no cluster comes back.
local key = target_key(a.target)
local uid = redis.call('HGET', key, 'uid')
if uid and uid ~= '' and a.uid ~= '' and uid ~= a.uid and redis.call('HEXISTS', key, 'u:' .. a.uid) == 0 then
  local gone = cjson.encode({ reason = 'CLUSTER_GONE', code = 9, retryable = false, azure_correlation_id = '',
    message = 'another cluster stands under the same id; the grant ended with the old one' })
  local record = redis.call('HGETALL', key)
  local was = fields(record)
  local settled = number(was.lease_end) + number(was.settle)
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
    if name then
      local call, token = string.match(was['i:' .. name] or 'delete:', '^(%a+):(.*)$')
      redis.call('HSET', key, 'i:' .. name, call .. ':')
      if token ~= '' then raise(key, 'd:' .. name, settled) end
      if token ~= '' and call == 'put' then raise(key, 'p:' .. name, settled) end
    end
  end
  for i = 1, #record, 2 do
    local job = string.match(record[i], '^j:(.*)$')
    if job then
      local waiting = cjson.decode(record[i + 1])
      local of = ended[waiting.grants[1]] or {}
      if waiting.kind == 'GRANT' and of.failed then
        finish_job_target(job, a.target, 'FAILED', of.failed)
      elseif waiting.kind == 'GRANT' and not of.active then
        finish_job_target(job, a.target, 'SUPERSEDED', gone)
      else
        finish_job_target(job, a.target, 'SUCCEEDED', '')
      end
    end
  end
  -- The old one's backoff went with it, too.
  redis.call('HSET', key, 'token', '', 'attempts', 0, 'not_before', 0, 'uid', a.uid, 'u:' .. uid, '')
end

local expire = ''
if given(a.ttl) then expire = now + a.ttl elseif given(a.expire) then expire = a.expire end

redis.call('HSET', grant_key(a.grant), 'v', 1, 'body', a.grant_body, 'target', a.target, 'state', 'PENDING',
  'active', 0, 'created', now, 'updated', now, 'expire', expire, 'job', a.job)
if expire ~= '' then redis.call('ZADD', P .. 'expiries', expire, a.grant) end

redis.call('HSET', key, 'v', 1, 'g:' .. a.grant, '')
if a.uid ~= '' and (uid or '') == '' then redis.call('HSET', key, 'uid', a.uid) end
make_job(a.job, a.job_body, a.target, { a.grant }, 'GRANT', false)
remember_request(a.job, a.grant, false)
wish_changed(a.target, 'writes')
audit(a.audit_event)
return { 'accepted', a.job, a.grant }
