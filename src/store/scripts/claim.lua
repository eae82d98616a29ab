-- Claims the target that is to be looked at next, for one worker (I4).
--
-- Flags: allow-oom.
-- Argument: token, lease (ms), settle (ms), turn (the claimer's own count), backoff {initial, max} (ms), jitter
-- (0.1 to 1), budget {writes, deletes: {capacity, per_second}}.
-- Returns nil where no target is ready in an open lane, or the token's lease is over; else {target, now, lease_end,
-- record, grants}, the record and each grant as flat lists of fields and values.

-- Whether a lane lets a call of this bucket through now: neither told to wait nor out of budget.
local function is_open(lane, bucket)
  return closed_for(lane, bucket) == 0 and tokens_left(lane, bucket, a.budget[bucket]) >= 1
end

local function take(lane, bucket)
  for _, target in ipairs(redis.call('ZRANGE', ready_key(lane, bucket), 0, 7)) do
    redis.call('ZREM', ready_key(lane, bucket), target)
    local held = redis.call('HMGET', target_key(target), 'token', 'lease_end', 'generation')
    if not held[3] then
      -- Its record went away while it was queued: there is nothing to do.
    elseif is_leased({ token = held[1], lease_end = held[2] }) then
      redis.call('ZADD', P .. 'due', held[2], target)
    else
      return target
    end
  end
  return nil
end

local function loaded(target, record)
  local grants = {}
  for field in pairs(record) do
    local grant = string.match(field, '^g:(.*)$')
    if grant then
      local held = redis.call('HGETALL', grant_key(grant))
      table.insert(held, 'id')
      table.insert(held, grant)
      table.insert(grants, held)
    end
  end
  return { target, now, number(redis.call('HGET', target_key(target), 'lease_end')),
    redis.call('HGETALL', target_key(target)), grants }
end

-- The same claim sent again, because its answer was lost, is the same claim.
local claim_key = P .. 'claim:' .. a.token
local claimed = redis.call('GET', claim_key)
if claimed then
  local record = fields(redis.call('HGETALL', target_key(claimed)))
  if record.token ~= a.token then return nil end
  return loaded(claimed, record)
end

local lanes = redis.call('SMEMBERS', P .. 'lanes')
table.sort(lanes)
-- Revocations go first where they compete, and one claim in eight goes to a grant. The two are counted apart, and each
-- begins with another lane than its last: counted together, of three lanes the same would come first at every eighth.
local eighths = math.floor(a.turn / 8)
local is_for_grants = a.turn % 8 == 7
local first = is_for_grants and eighths or a.turn - eighths
local order = is_for_grants and { 'writes', 'deletes' } or { 'deletes', 'writes' }
local target = nil
for _, bucket in ipairs(order) do
  for i = 1, #lanes do
    local lane = lanes[(first + i) % #lanes + 1]
    if not target and redis.call('EXISTS', ready_key(lane, bucket)) == 1 and is_open(lane, bucket) then
      target = take(lane, bucket)
    end
  end
end
if not target then return nil end

local key = target_key(target)
local record = fields(redis.call('HGETALL', key))

-- Intents that their worker left without an answer: its calls may take effect until its lease's end + settle time.
if (record.token or '') ~= '' then
  local until_ = number(record.lease_end) + a.settle
  for field, value in pairs(record) do
    local name = string.match(field, '^i:(.*)$')
    local call, token = string.match(value, '^(%a+):(.*)$')
    if name and token ~= '' then
      redis.call('HSET', key, field, call .. ':')
      raise(key, 'd:' .. name, until_)
      if call == 'put' then raise(key, 'p:' .. name, until_) end
    end
  end
end

-- The attempt is counted now, and the earliest next one set: a target that kills its worker backs off.
local attempts = number(record.attempts) + 1
local bound = math.min(a.backoff.max, a.backoff.initial * 2 ^ math.min(attempts - 1, 31))
local lease_end = now + a.lease
redis.call('HSET', key, 'token', a.token, 'lease_end', lease_end, 'settle', a.settle, 'attempts', attempts,
  'not_before', math.floor(now + bound * a.jitter))
redis.call('ZADD', P .. 'due', lease_end, target)
redis.call('SET', claim_key, target, 'PX', a.lease)

for field in pairs(record) do
  local job = string.match(field, '^j:(.*)$')
  if job then
    redis.call('HINCRBY', job_key(job), 'attempts', 1)
    redis.call('HINCRBY', targets_key(job), 'a:' .. target, 1)
    job_target_is(job, target, 'RUNNING', nil)
    job_goes_on(job)
  end
end
return loaded(target, record)
