-- What every script shares. KEYS[1] is the broker's `meta` key; every other key is made from its prefix, which
-- carries the broker's hash tag, so that all of them are in one slot. ARGV[1] is one JSON document.
--
-- Numbers: times are milliseconds of Redis's own clock, 13 digits, which Lua's %.14g writes exactly.

local P = string.match(KEYS[1], '^(.*:)meta$')
local a = cjson.decode(ARGV[1])

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local now = clock()

-- cjson gives null as a light userdata, which is true in a condition.
local function given(value)
  return value ~= nil and value ~= cjson.null
end

-- The keys of a target's record, of a grant, of a job and of a lane.
local function target_key(target) return P .. 'target:' .. target end
local function grant_key(grant) return P .. 'grant:' .. grant end
local function job_key(job) return P .. 'job:' .. job end
local function todo_key(job) return P .. 'job:' .. job .. ':todo' end
local function targets_key(job) return P .. 'job:' .. job .. ':targets' end
local function ready_key(subscription, bucket) return P .. 'ready:' .. subscription .. ':' .. bucket end
local function lane_key(subscription) return P .. 'lane:' .. subscription end

-- A target is `/subscriptions/{guid}/…|{object id}`: its lane is its subscription.
local function lane_of(target)
  return string.sub(target, 16, 51)
end

-- I10: one event, with its sequence number, in the script that does what it tells of.
local function audit(event)
  local sequence = redis.call('INCR', P .. 'audit:sequence')
  redis.call('XADD', P .. 'audit', 'MAXLEN', '~', a.audit_length, '*', 'v', 1, 'sequence', sequence, 'time', now,
    'event', event)
end

-- Raises a job's version and tells whoever watches. The event's id is a position in the broker's changes.
local function job_changed(job)
  redis.call('HINCRBY', job_key(job), 'version', 1)
  return redis.call('XADD', P .. 'events', 'MAXLEN', '~', 100000, '*', 'job', job)
end

local function fields(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end

local function number(value)
  return tonumber(value or '') or 0
end

-- Moves a time in a record on, never back.
local function raise(key, field, value)
  if value > number(redis.call('HGET', key, field)) then redis.call('HSET', key, field, value) end
end

-- A lease holds while somebody's token is there and its end has not passed.
local function is_leased(record)
  return (record.token or '') ~= '' and number(record.lease_end) > now
end

-- Puts a target into the queue of the bucket that it needs next; not while it is leased: record, or the
-- lease's end, queues it then.
local function enqueue(target, bucket)
  local lane = lane_of(target)
  local other = bucket == 'deletes' and 'writes' or 'deletes'
  redis.call('SADD', P .. 'lanes', lane)
  redis.call('ZREM', ready_key(lane, other), target)
  redis.call('ZADD', ready_key(lane, bucket), 'NX', now, target)
  redis.call('ZREM', P .. 'due', target)
end

local function is_revoking(record)
  for field in pairs(record) do
    local grant = string.match(field, '^g:(.*)$')
    if grant and redis.call('HGET', grant_key(grant), 'state') == 'REVOKING' then return true end
  end
  return false
end

-- What a lane's bucket holds now. After a failover the clock may be behind: nothing is taken back for that.
local function tokens_left(lane, bucket, budget)
  local held = redis.call('HMGET', lane_key(lane), bucket .. ':tokens', bucket .. ':at')
  if not held[1] then return budget.capacity end
  local passed = math.max(0, now - number(held[2]))
  return math.min(budget.capacity, number(held[1]) + passed / 1000 * budget.per_second)
end

-- How long Azure has told a lane's bucket to wait; 0: it is open.
local function closed_for(lane, bucket)
  return math.max(0, number(redis.call('HGET', lane_key(lane), bucket .. ':closed')) - now)
end

-- A wish of the target has changed: raises its generation and has it looked at. `bucket` is what the change
-- needs; a revocation clears the backoff, a grant waits for it to pass.
local function wish_changed(target, bucket)
  local key = target_key(target)
  redis.call('HINCRBY', key, 'generation', 1)
  redis.call('PERSIST', key)
  local record = fields(redis.call('HGETALL', key))
  if bucket == 'deletes' then
    redis.call('HSET', key, 'bucket', 'deletes', 'attempts', 0, 'not_before', 0)
    record.bucket, record.not_before = 'deletes', 0
  elseif record.bucket ~= 'deletes' or not is_revoking(record) then
    redis.call('HSET', key, 'bucket', 'writes')
    record.bucket = 'writes'
  end
  if is_leased(record) then return end
  if number(record.not_before) > now then
    redis.call('ZADD', P .. 'due', number(record.not_before), target)
  else
    enqueue(target, record.bucket)
  end
end

-- A job is over: whoever watches is told, and it is kept for a while.
local function finish_job(job, state)
  local key = job_key(job)
  redis.call('HSET', key, 'state', state, 'finished', now)
  redis.call('HDEL', key, 'next')
  redis.call('HSET', key, 'token', job_changed(job))
  redis.call('PEXPIRE', key, a.retention)
  redis.call('PEXPIRE', targets_key(job), a.retention)
end

-- Makes a job with one target. `over`: it has nothing to wait for.
local function make_job(job, body, target, grants, kind, over)
  local key = job_key(job)
  redis.call('HSET', key, 'v', 1, 'body', body, 'kind', kind, 'state', over and 'SUCCEEDED' or 'QUEUED',
    'created', now, 'attempts', 0, 'total', 1, 'done', over and 1 or 0, 'version', 0)
  redis.call('HSET', targets_key(job), 's:' .. target, over and 'SUCCEEDED' or 'QUEUED', 'a:' .. target, 0,
    'g:' .. target, cjson.encode(grants))
  if over then
    finish_job(job, 'SUCCEEDED')
  else
    redis.call('SADD', todo_key(job), target)
    redis.call('HSET', target_key(target), 'j:' .. job, cjson.encode({ kind = kind, grants = grants }))
    job_changed(job)
  end
end

-- I3: the record of an idempotency key. Returns an answer if the key was used before.
local function replay()
  local function outlive(kept)
    local life = redis.call('PTTL', kept)
    if life > 0 and life < a.request_life then redis.call('PEXPIRE', kept, a.request_life) end
  end
  local key = P .. 'req:' .. a.caller .. ':' .. a.request_id
  local known = fields(redis.call('HGETALL', key))
  if not known.hash then return nil end
  if known.hash ~= a.hash then return { 'reused', known.job } end
  -- The replay renews the record's life, and that of what it answers with; it is a write, so that waiting for
  -- replicas covers it.
  redis.call('HSET', key, 'seen', now)
  outlive(key)
  outlive(job_key(known.job))
  outlive(targets_key(known.job))
  if known.grant then outlive(grant_key(known.grant)) end
  return { 'replayed', known.job, known.grant or '' }
end

local function remember_request(job, grant, over)
  local key = P .. 'req:' .. a.caller .. ':' .. a.request_id
  redis.call('HSET', key, 'v', 1, 'hash', a.hash, 'job', job, 'grant', grant)
  redis.call('HSET', job_key(job), 'request', key)
  if over then redis.call('PEXPIRE', key, a.request_life) end
end

-- Ends what a job had to do on one target; the job is over when no target is left.
local function finish_job_target(job, target, state, failure)
  redis.call('HDEL', target_key(target), 'j:' .. job)
  if redis.call('SREM', todo_key(job), target) == 0 then return end
  redis.call('HSET', targets_key(job), 's:' .. target, state, 'x:' .. target, failure)
  redis.call('HDEL', targets_key(job), 'n:' .. target)
  local key = job_key(job)
  redis.call('HINCRBY', key, 'done', 1)
  if state ~= 'SUCCEEDED' then redis.call('HINCRBY', key, state, 1) end
  if failure ~= '' then redis.call('HSET', key, 'error', failure) end
  if redis.call('SCARD', todo_key(job)) > 0 then
    job_changed(job)
    return
  end
  local record = fields(redis.call('HGETALL', key))
  local final = 'SUCCEEDED'
  if number(record.SUPERSEDED) > 0 then final = 'SUPERSEDED' end
  if number(record.FAILED) > 0 then final = 'FAILED' end
  finish_job(job, final)
  if record.request then redis.call('PEXPIRE', record.request, a.request_life) end
end

-- Ends a grant for good.
local function finish_grant(grant, ending)
  local key = grant_key(grant)
  local target = redis.call('HGET', key, 'target')
  redis.call('HSET', key, 'state', 'ENDED', 'ending', ending, 'updated', now, 'ended', now)
  redis.call('PEXPIRE', key, a.retention)
  redis.call('ZREM', P .. 'expiries', grant)
  redis.call('HDEL', target_key(target), 'g:' .. grant)
end

-- Takes a live grant's wish back.
local function revoke_grant(grant, ending, by, job)
  redis.call('HSET', grant_key(grant), 'state', 'REVOKING', 'ending', ending, 'updated', now, 'ended_by', by,
    'job', job)
  redis.call('ZREM', P .. 'expiries', grant)
end
