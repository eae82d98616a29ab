-- Records a pass: completes, fails and hands back (I2, I4, I5, I10).
--
-- Flags: allow-oom.
-- Argument: target, token, generation and claimed (both as claim returned them),
--   rows [{name, body, call, open ('' | put | delete), may_be_gone, sent, answered, deadline (ms), put_until (ms),
--     landed}]: the effects that the pass intended to touch; `sent`: its call was begun (else the intent is withdrawn),
--     `answered`: a definite answer came, `landed`: a PUT of this pass took effect,
--   grants [{id, from, from_ending, to, ending, error, settled [names], shared}],
--   jobs [{id, to, final, error, grants [ids], effects [{name, body}] (done for it)}], forget [names],
--   moved (wishes change by this record),
--   waits and delay (not to be looked at for so many ms, unless a wish wants it), again (steps are left that nothing
--     stood in the way of), reset (the pass ended well, or never began: the backoff begins anew), bucket,
--   closed [{bucket, until_after (ms)}], remaining [{bucket, calls}], settle (ms), lag (ms), audit_events [..],
--   lost_event, retention (ms), request_life (ms).
-- Returns {'recorded'}, also when it is sent again, or {'lost'} where the lease was not ours any more: then nothing is
-- recorded, and what the pass touched is marked unsettled.

local key = target_key(a.target)

-- Sent again, because the answer was lost: it is done, and told.
if redis.call('HGET', key, 'recorded') == a.token then return { 'recorded' } end
if redis.call('HGET', key, 'reported') == a.token then return { 'lost' } end

local lane = lane_key(lane_of(a.target))

-- What a lane may do is learned: ARM counts calls that are not the broker's as well.
for _, left in ipairs(a.remaining) do
  if number(redis.call('HGET', lane, left.bucket .. ':tokens')) > left.calls then
    redis.call('HSET', lane, left.bucket .. ':tokens', left.calls, left.bucket .. ':at', now)
  end
end

for _, closing in ipairs(a.closed) do
  local until_ = now + closing.until_after
  if until_ > number(redis.call('HGET', lane, closing.bucket .. ':closed')) then
    redis.call('HSET', lane, closing.bucket .. ':closed', until_)
  end
end

if redis.call('HGET', key, 'token') ~= a.token then
  -- Somebody else has, or had, the target: what we did may have crossed what they did. Each effect that we
  -- touched is written again once nothing of ours can take effect any more.
  local touched = false
  for _, row in ipairs(a.rows) do
    if row.sent then
      touched = true
      redis.call('HSETNX', key, 'e:' .. row.name, row.body)
      local intent = redis.call('HGET', key, 'i:' .. row.name)
      if not intent or string.match(intent, ':$') then redis.call('HSET', key, 'i:' .. row.name, row.call .. ':') end
      raise(key, 'd:' .. row.name, math.max(now + a.settle, row.deadline))
      if row.call == 'put' then raise(key, 'p:' .. row.name, math.max(now + a.settle, row.deadline)) end
      redis.call('HSET', key, 'm:' .. row.name, 1)
    end
  end
  if not touched then return { 'lost' } end
  effects_changed(a.target)
  redis.call('HSETNX', key, 'v', 1)
  redis.call('HSETNX', key, 'generation', 0)
  redis.call('HSET', key, 'reported', a.token)
  redis.call('PERSIST', key)
  local record = fields(redis.call('HGETALL', key))
  if not is_leased(record) then enqueue(a.target, 'deletes') end
  for _, event in ipairs(a.audit_events) do audit(event) end
  audit(a.lost_event)
  return { 'lost' }
end

for _, row in ipairs(a.rows) do
  redis.call('HSET', key, 'e:' .. row.name, row.body)
  if row.open == '' then
    redis.call('HDEL', key, 'i:' .. row.name)
  else
    redis.call('HSET', key, 'i:' .. row.name, row.open .. ':')
  end
  -- A deadline that an earlier pass left stays until a pass claimed after it was answered; of two the later counts.
  local deadline = number(redis.call('HGET', key, 'd:' .. row.name))
  if row.answered and deadline <= a.claimed then deadline = 0 end
  deadline = math.max(deadline, row.deadline)
  if deadline > 0 then
    redis.call('HSET', key, 'd:' .. row.name, deadline)
  else
    redis.call('HDEL', key, 'd:' .. row.name)
  end
  if row.may_be_gone then
    redis.call('HSET', key, 'm:' .. row.name, 1)
  elseif deadline == 0 then
    redis.call('HDEL', key, 'm:' .. row.name)
  end
  local landed = math.max(row.put_until, row.landed and now or 0)
  if landed > 0 then raise(key, 'p:' .. row.name, landed) end
end
if #a.rows > 0 then
  effects_changed(a.target)
  redis.call('ZREMRANGEBYSCORE', P .. 'recent', '-inf', now - 2 * a.lag - 60000)
end

local moved = number(redis.call('HGET', key, 'generation')) ~= a.generation
local skipped = {}
local again = moved or a.again

local function holds(change)
  local held = redis.call('HMGET', grant_key(change.id), 'state', 'ending')
  if held[1] ~= change.from or (held[2] or '') ~= change.from_ending then return false end
  if change.shared and moved then return false end
  for _, name in ipairs(change.settled) do
    local open = redis.call('HMGET', key, 'd:' .. name, 'i:' .. name)
    if open[1] or open[2] then return false end
  end
  return true
end

for _, change in ipairs(a.grants) do
  if not holds(change) then
    skipped[change.id] = true
    again = true
  else
    redis.call('HSET', grant_key(change.id), 'error', change.error)
    if change.to == 'ENDED' then
      finish_grant(change.id, change.ending)
    elseif change.to ~= change.from then
      redis.call('HSET', grant_key(change.id), 'state', change.to, 'ending', change.ending, 'updated', now)
      if change.to == 'ACTIVE' then redis.call('HSET', grant_key(change.id), 'active', 1) end
      if change.to == 'REVOKING' then leave_the_living(change.id) end
    end
    if given(change.audit_event) then audit(change.audit_event) end
  end
end

for _, change in ipairs(a.jobs) do
  if redis.call('HEXISTS', key, 'j:' .. change.id) == 1 then
    for _, effect in ipairs(change.effects) do
      local targets, names = targets_key(change.id), 'f:' .. a.target
      if redis.call('HSET', targets, 'e:' .. effect.name .. ':' .. a.target, effect.body) == 1 then
        redis.call('HSET', targets, names, (redis.call('HGET', targets, names) or '') .. effect.name .. ',')
      end
    end
  end
  local rests = true
  for _, grant in ipairs(change.grants) do rests = rests and not skipped[grant] end
  if rests and change.final then
    finish_job_target(change.id, a.target, change.to, change.error)
  elseif rests and redis.call('HEXISTS', key, 'j:' .. change.id) == 1 then
    if change.error ~= '' then
      redis.call('HSET', job_key(change.id), 'error', change.error)
      redis.call('HSET', targets_key(change.id), 'x:' .. a.target, change.error)
    end
    job_target_is(change.id, a.target, change.to, change.to == 'RETRYING' and now + a.delay or nil)
    job_goes_on(change.id)
  end
end
for _, event in ipairs(a.audit_events) do audit(event) end

-- A worker that came late may have reported on an effect since claim: that is not forgotten.
for _, name in ipairs(a.forget) do
  local open = redis.call('HMGET', key, 'd:' .. name, 'i:' .. name)
  if not (open[1] or open[2]) then
    redis.call('HDEL', key, 'e:' .. name, 'd:' .. name, 'p:' .. name, 'i:' .. name, 'm:' .. name)
  end
end

-- The lease goes, and the target is looked at again when it has to be. Only a revocation that came meanwhile has
-- set the attempts back: it does not wait for this pass's backoff, and neither does the taking back of a grant.
local urgent = a.moved or (moved and number(redis.call('HGET', key, 'attempts')) == 0)
if a.moved then redis.call('HINCRBY', key, 'generation', 1) end
local not_before = 0
if a.waits and not urgent then not_before = now + a.delay end
redis.call('HSET', key, 'token', '', 'not_before', not_before, 'recorded', a.token)
if a.reset then redis.call('HSET', key, 'attempts', 0) end

local record = redis.call('HGETALL', key)
local next_look, waits, revoking, pending, open, awaited = nil, false, false, false, false, false
for i = 1, #record, 2 do
  local kind = string.match(record[i], '^(%a):')
  if kind == 'd' and (not next_look or number(record[i + 1]) < next_look) then next_look = number(record[i + 1]) end
  if kind == 'g' then
    waits = true
    local state = redis.call('HGET', grant_key(string.sub(record[i], 3)), 'state')
    revoking = revoking or state == 'REVOKING'
    pending = pending or state == 'PENDING'
  end
  open = open or kind == 'i'
  awaited = awaited or kind == 'j'
  if kind == 'j' or kind == 'i' or kind == 'd' then waits = true end
end
local bucket = revoking and 'deletes' or pending and 'writes' or a.bucket
redis.call('HSET', key, 'bucket', bucket)
if not_before > now then
  redis.call('ZADD', P .. 'due', not_before, a.target)
elseif again or urgent or open then
  -- What is open without a failure of this pass was reported by a worker that came late.
  enqueue(a.target, bucket)
elseif next_look then
  redis.call('ZADD', P .. 'due', math.max(next_look, now), a.target)
elseif awaited then
  -- Nobody whose job waits is left without another look, whatever this pass made of it.
  redis.call('ZADD', P .. 'due', now + 1000, a.target)
else
  redis.call('ZREM', P .. 'due', a.target)
  -- Nobody waits and nothing is open: what is known of gone effects is of use until reads have caught up.
  if not waits then redis.call('PEXPIRE', key, a.lag + 60000) end
end
return { 'recorded' }
