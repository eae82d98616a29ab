-- Records a pass: completes, fails and hands back (I2, I4, I5, I10).
--
-- Flags: allow-oom.
-- Argument: target, token, generation (that claim returned), claimed (ms; the pass has planned for all deadlines before
-- it),
--   behind and caught_up (ms; how far `claimed` is behind this clock, and when, by this clock, that ends),
--   rows [{name, body, call, open ('' | put | delete), may_be_gone, sent, unanswered, was and deadline (ms), put_until
--     (ms), landed}]: the effects that the pass intended to touch. `sent`: the pass sent the call (else the intent is
--     withdrawn). `unanswered`: no answer came, so the call may still be under way. `was`: the settle deadline that
--     claim returned. `landed`: a PUT of this pass took effect,
--   open [names]: effects that the pass leaves open, or that it found open and left so, grants [{id, from, from_ending,
--   to, ending, error, settled [names], shared}], jobs [{id, to, final, error, grants [ids], waits_for [buckets],
--   effects [{name, body}] (done for it)}], forget [names], moved (the desired state changes by this record), looks
--   {deletes, writes: {needed, wait (ms), failures}}: whether the bucket has work left, how long that work waits (0:
--     not at all) unless access ends meanwhile, and how many passes in a row have failed there,
--   again (the pass left steps that did not have to wait),
--   closed [{bucket, until_after (ms)}], remaining [{bucket, calls}], lease (ms), settle (ms), lag (ms),
--   audit_events [..], lost_event, remembered (ms), retention (ms), request_life (ms).
-- Returns {'recorded', damaged ..}, also when it is sent again. Returns {'lost'} if this worker no longer had the
-- lease: then the script records nothing, and marks the effects that the pass touched as unsettled. `damaged`: jobs
-- that the script could not read, and skipped.
-- Invariant: a pass is recorded at most once, and only by the worker that has the lease.

local key = target_key(a.target)

-- If this pass was recorded before, the record was sent again because its answer was lost. It is done, and its events
-- are written, even if another worker has had the target since (I10).
local pass_key = P .. 'pass:' .. a.token
local pass = redis.call('GET', pass_key)
if pass == '=recorded' then return { 'recorded' } end
if pass == '=lost' then return { 'lost' } end

-- Reads before the first write: a damaged grant stops the script here, with nothing half done.
for _, change in ipairs(a.grants) do redis.call('HGET', grant_key(change.id), 'state') end

-- By then, every call that is under way has taken effect or never will.
local longest = now + math.max(a.lease + a.settle, number(redis.call('HGET', key, 'longest')))

local lane = lane_key(lane_of(a.target))

-- Learns the lane's budget from ARM's answers, because ARM also counts calls of others than the broker.
for _, left in ipairs(a.remaining) do
  if number(redis.call('HGET', lane, left.bucket .. ':tokens')) > left.calls then
    redis.call('HSET', lane, left.bucket .. ':tokens', left.calls, left.bucket .. ':at', now)
  end
end

for _, closing in ipairs(a.closed) do
  local known = end_of_wait(redis.call('HGET', lane, closing.bucket .. ':closed'))
  if now + closing.until_after > known then
    redis.call('HSET', lane, closing.bucket .. ':closed', wait_of(closing.until_after))
  end
end

if redis.call('HGET', key, 'token') ~= a.token then
  -- Another worker has, or had, the target: this pass's calls may have crossed that worker's. Each effect that this
  -- pass touched is written again once no call of this pass can take effect any more.
  local touched = false
  for _, row in ipairs(a.rows) do
    if row.sent then
      touched = true
      redis.call('HSETNX', key, 'e:' .. row.name, row.body)
      local intent = redis.call('HGET', key, 'i:' .. row.name)
      if not intent or string.match(intent, ':$') then redis.call('HSET', key, 'i:' .. row.name, row.call .. ':') end
      local deadline = math.min(longest, math.max(now + a.settle, row.deadline))
      -- Always differs from the stored one, so that the pass that now has the target sees that it was set since its
      -- claim.
      deadline = math.max(deadline, number(redis.call('HGET', key, 'd:' .. row.name)) + 1)
      redis.call('HSET', key, 'd:' .. row.name, deadline)
      if row.call == 'put' then raise(key, 'p:' .. row.name, deadline) end
      redis.call('HSET', key, 'm:' .. row.name, 1)
    end
  end
  if not touched then return { 'lost' } end
  redis.call('SET', pass_key, '=lost', 'PX', a.remembered)
  effects_changed(a.target)
  redis.call('HSETNX', key, 'v', 1)
  redis.call('HSETNX', key, 'generation', 0)
  redis.call('PERSIST', key)
  local record = fields(redis.call('HGETALL', key))
  if is_leased(record) then
    wait_for_lease(a.target, record)
  else
    for _, bucket in ipairs(BUCKETS) do enqueue(a.target, bucket) end
  end
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
  -- The pass has judged the deadline that it loaded. If another worker has set one since, the later of the two counts.
  local stored, deadline = number(redis.call('HGET', key, 'd:' .. row.name)), row.deadline
  if stored ~= row.was then deadline = math.max(stored, deadline) end
  local landed = math.max(row.put_until, row.landed and now or 0)
  if row.sent and row.unanswered then
    -- The worker's time may be behind: it was suspended, or Redis's clock has leapt ahead.
    deadline = math.max(deadline, now + a.settle)
    if row.call == 'put' then landed = math.max(landed, now + a.settle) end
  end
  deadline, landed = math.min(deadline, longest), math.min(landed, longest)
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
  if change.shared and moved then
    redis.call('HINCRBY', key, 'o:' .. change.id, 1)
    return false
  end
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

-- Works out when each bucket is looked at again. No wait is longer than the next settle deadline. Waits are cleared
-- only if access has ended meanwhile, or this record takes back a grant that failed.
local stored = fields(redis.call('HGETALL', key))
local urgent = a.moved or stored.urgent ~= nil
local next_deadline, next_look = nil, nil
for field, value in pairs(stored) do
  local deadline = string.match(field, '^d:') and number(value)
  -- The claim has cut all deadlines to the bound. If one exceeds it now, the clock has gone back since.
  if deadline and deadline > longest then
    deadline = longest
    redis.call('HSET', key, field, deadline)
  end
  if deadline and deadline > now then next_deadline = math.min(next_deadline or deadline, deadline) end
  -- The pass has planned for deadlines that were over at the claim. While the worker believes in an earlier time than
  -- this clock's, a look at the deadline itself would come too early.
  if deadline and deadline > math.min(now, a.claimed) then
    local over = math.min(deadline + a.behind, math.max(deadline, a.caught_up))
    next_look = math.min(next_look or over, over)
  end
end
local function wait_in(bucket)
  if urgent then return 0 end
  local wait = a.looks[bucket].wait
  return next_deadline and math.min(wait, next_deadline - now) or wait
end

local function change_job(change)
  -- Reads before it writes, so that a damaged job fails here.
  redis.call('HGET', job_key(change.id), 'state')
  redis.call('HGET', targets_key(change.id), 's:' .. a.target)
  redis.call('SCARD', todo_key(change.id))
  redis.call('SCARD', requests_key(change.id))
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
    local wait = nil
    for _, bucket in ipairs(change.waits_for) do wait = math.min(wait or wait_in(bucket), wait_in(bucket)) end
    job_target_is(change.id, a.target, change.to, change.to == 'RETRYING' and now + (wait or 0) or nil)
    job_goes_on(change.id)
  end
end
-- A job that cannot be read does not stop the record of the target.
for _, change in ipairs(a.jobs) do try(job_key(change.id), change_job, change) end
for _, event in ipairs(a.audit_events) do audit(event) end

-- A late worker may have reported on an effect since the claim. Such an effect is kept.
for _, name in ipairs(a.forget) do
  local open = redis.call('HMGET', key, 'd:' .. name, 'i:' .. name)
  if not (open[1] or open[2]) then
    redis.call('HDEL', key, 'e:' .. name, 'd:' .. name, 'p:' .. name, 'i:' .. name, 'm:' .. name)
  end
end

if a.moved then redis.call('HINCRBY', key, 'generation', 1) end
redis.call('HSET', key, 'token', '', 'attempts', 0)
redis.call('HDEL', key, 'pause')
redis.call('ZREM', P .. 'due', 'lease:' .. a.target)
redis.call('SET', pass_key, '=recorded', 'PX', a.remembered)

-- Gives the lease back, and schedules each bucket of the target.
local known_open, waits, awaited, scheduled = {}, false, false, false
for _, name in ipairs(a.open) do known_open[name] = true end
local reported = false
for field in pairs(fields(redis.call('HGETALL', key))) do
  local kind, name = string.match(field, '^(%a):(.*)$')
  -- An effect that is open, but not in `a.open`, was reported by a late worker.
  if kind == 'i' and not known_open[name] then reported = true end
  if kind == 'j' then awaited = true end
  if kind == 'g' or kind == 'j' or kind == 'i' or kind == 'd' then waits = true end
end
for _, bucket in ipairs(BUCKETS) do
  local look, wait = a.looks[bucket], wait_in(bucket)
  if wait > 0 then
    redis.call('HSET', key, 'w:' .. bucket, wait_of(wait))
  else
    redis.call('HDEL', key, 'w:' .. bucket)
  end
  if look.failures > 0 and not urgent then
    redis.call('HSET', key, 'f:' .. bucket, look.failures)
  else
    redis.call('HDEL', key, 'f:' .. bucket)
  end
  if look.needed or again or urgent or reported then
    look_at(a.target, bucket, now + wait)
    scheduled = true
  elseif next_look then
    look_at(a.target, bucket, next_look)
    scheduled = true
  else
    dequeue(a.target, bucket)
  end
end
if awaited and not scheduled then
  -- A job waits for this target, and nothing is scheduled. Looks again, so that no job waits for ever; later if a job
  -- cannot be read.
  local soon = #damaged > 0 and PUT_OFF or 1000
  for _, bucket in ipairs(BUCKETS) do due_at(bucket, a.target, now + soon) end
end
-- No job waits and no effect is open. What is known of gone effects is needed until Azure's reads have caught up.
if not waits and not scheduled then redis.call('PEXPIRE', key, a.lag + 60000) end
return { 'recorded', unpack(damaged) }
