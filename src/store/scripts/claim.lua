-- Claims the target that is to be looked at next, for one worker (I4).
--
-- Flags: allow-oom.
-- Argument: token, lease (ms), settle (ms), timeout (ms; of one call), turn (the claimer's own count), backoff
-- {initial, max} (ms), jitter (0.1 to 1), budget {writes, deletes: {capacity, per_second}}, remembered (ms).
-- Returns {claimed, damaged}. `claimed` is false if no target is ready in an open lane, or the token's lease is over.
-- Else it is {target, now, lease_end, record, grants, waits}: the record and each grant are flat lists of fields and
-- values; `waits` says for how many ms deletes and writes still have to wait. `damaged`: rows that the script could not
-- read, and skipped.
-- Invariant: at most one worker holds the lease of a target. A target that cannot be read stops no other from being
-- claimed.

-- Whether a lane lets a call of this bucket through now: Azure has not told it to wait, and it has budget left.
local function is_open(lane, bucket)
  return closed_for(lane, bucket) == 0 and tokens_left(lane, bucket, a.budget[bucket]) >= 1
end

-- Reads everything that a pass needs, before the first write. So a damaged row fails here.
local function load(target)
  local list = redis.call('HGETALL', target_key(target))
  local record, grants = fields(list), {}
  for field in pairs(record) do
    local grant = string.match(field, '^g:(.*)$')
    if grant then
      local held = redis.call('HGETALL', grant_key(grant))
      table.insert(held, 'id')
      table.insert(held, grant)
      table.insert(grants, held)
    end
  end
  return { target = target, list = list, record = record, grants = grants }
end

local function claimed(found)
  local record = fields(found.list)
  local waits = { left_of_wait(record['w:deletes']), left_of_wait(record['w:writes']) }
  return { { found.target, now, number(record.lease_end), found.list, found.grants, waits }, damaged }
end

local function take(lane, bucket)
  for _, target in ipairs(redis.call('ZRANGE', ready_key(lane, bucket), 0, 7)) do
    local is_sound, found = try(target_key(target), load, target)
    -- First of all: if this script fails later on, the target is looked at again.
    due_at('lease', target, now + PUT_OFF)
    for _, queue in ipairs(BUCKETS) do dequeue(target, queue) end
    if not is_sound then
      -- It is tried again in a minute.
    elseif not found.record.generation then
      -- Its record was deleted while the target was queued, so there is nothing to do.
      redis.call('ZREM', P .. 'due', 'lease:' .. target)
    elseif is_leased(found.record) then
      wait_for_lease(target, found.record)
    else
      return found
    end
  end
  return nil
end

-- The same claim sent again, because its answer was lost, is the same claim.
local pass = redis.call('GET', P .. 'pass:' .. a.token)
if pass then
  local found = load(pass)
  if found.record.token ~= a.token then return { false, damaged } end
  return claimed(found)
end

local lanes = redis.call('SMEMBERS', P .. 'lanes')
table.sort(lanes)
-- Revocations go first where they compete, and one claim in eight goes to a grant. The two are counted apart, and each
-- begins with another lane than its last: counted together, of three lanes the same would come first at every eighth.
local eighths = math.floor(a.turn / 8)
local is_for_grants = a.turn % 8 == 7
local first = is_for_grants and eighths or a.turn - eighths
local order = is_for_grants and { 'writes', 'deletes' } or { 'deletes', 'writes' }

local function take_where_open(lane, bucket)
  if redis.call('EXISTS', ready_key(lane, bucket)) == 0 or not is_open(lane, bucket) then return nil end
  return take(lane, bucket)
end

local found = nil
for _, bucket in ipairs(order) do
  for i = 1, #lanes do
    local lane = lanes[(first + i) % #lanes + 1]
    if not found then
      local _, taken = try(lane_key(lane), take_where_open, lane, bucket)
      if type(taken) == 'table' and taken.target then found = taken end
    end
  end
end
if not found then return { false, damaged } end

local target, record = found.target, found.record
local key = target_key(target)

-- Intents that their worker left without an answer.
local settle = math.max(a.settle, number(record.settle))
if (record.token or '') ~= '' then
  local until_ = calls_settle(record, settle)
  for field, value in pairs(record) do
    local name = string.match(field, '^i:(.*)$')
    local call, token = string.match(value, '^(%a+):(.*)$')
    if name and call and token ~= '' then
      redis.call('HSET', key, field, call .. ':')
      may_land_until(key, name, call, until_)
    end
  end
end

-- A settle deadline or the last moment of a PUT lies at most a lease, a call timeout and the settle time ahead. If one
-- lies further ahead, the clock has gone back, and DELETEs would wait for the difference. So it is cut to that bound.
-- Replicas may have different settings for a while: the longest counts.
local longest = math.max(a.lease + a.timeout + a.settle, number(record.longest))
local next_deadline = nil
for field, value in pairs(fields(redis.call('HGETALL', key))) do
  local kind, time = string.match(field, '^([dp]):'), number(value)
  if kind and time > now + longest then
    time = now + longest
    redis.call('HSET', key, field, time)
  end
  if kind == 'd' and time > now then next_deadline = math.min(next_deadline or time, time) end
end

-- Counts the attempt now, and sets the earliest next one. So a target that kills its worker backs off, but never past
-- its next settle deadline.
local attempts = number(record.attempts) + 1
local pause = math.min(a.backoff.max, a.backoff.initial * 2 ^ math.min(attempts - 1, 31))
pause = math.floor(pause * a.jitter)
if next_deadline then pause = math.min(pause, next_deadline - now) end
local lease_end = now + a.lease
redis.call('HSET', key, 'token', a.token, 'lease_end', lease_end, 'lease', a.lease, 'settle', a.settle,
  'timeout', a.timeout, 'longest', longest, 'attempts', attempts, 'pause', wait_of(pause))
redis.call('HDEL', key, 'urgent')
due_at('lease', target, lease_end)
redis.call('SET', P .. 'pass:' .. a.token, target, 'PX', math.max(a.lease, a.remembered))

local function begin_job(job)
  -- Reads before it writes, so that a damaged job fails here.
  redis.call('HGET', job_key(job), 'state')
  redis.call('HGET', targets_key(job), 's:' .. target)
  redis.call('HINCRBY', job_key(job), 'attempts', 1)
  redis.call('HINCRBY', targets_key(job), 'a:' .. target, 1)
  job_target_is(job, target, 'RUNNING', nil)
  job_goes_on(job)
end
for field in pairs(record) do
  local job = string.match(field, '^j:(.*)$')
  if job then try(job_key(job), begin_job, job) end
end
return claimed(load(target))
