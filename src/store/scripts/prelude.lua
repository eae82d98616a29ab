-- What every script shares. KEYS[1] is the broker's `meta` key; every other key is made from its prefix, which
-- carries the broker's hash tag, so that all of them are in one slot. ARGV[1] is one JSON document.
--
-- A script that fails half-way leaves what it has done so far. So a script reads what may be damaged before it writes.
--
-- Numbers: times are milliseconds of Redis's own clock, 13 digits, which Lua's %.14g writes exactly.

local P = string.match(KEYS[1], '^(.*:)meta$')
local a = cjson.decode(ARGV[1])

-- Checks that this is still the Redis that the calling process began with: it may have been emptied or replaced since.
-- The check is in the same atomic step as the script, before anything else is read or written. The error writes each
-- value as one word, whatever its bytes are.
local meta = redis.pcall('HMGET', KEYS[1], 'v', 'instance')
if meta[1] ~= a.began_with.format or meta[2] ~= a.began_with.instance then
  local function word(value)
    return value and string.gsub(string.sub(value, 1, 64), '[^%w%-]', '?') or 'none'
  end
  return redis.error_reply('INDOUBT ' .. KEYS[1] .. ' ' .. a.began_with.format .. '/' .. a.began_with.instance .. ' '
    .. word(meta[1]) .. '/' .. word(meta[2]))
end

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local now = clock()

-- cjson gives null as a light userdata, which is true in a condition.
local function given(value)
  return value ~= nil and value ~= cjson.null
end

-- The keys of a target's record, of a grant, of a job and of a lane. Besides what claim returns, a target's record has:
-- `token`, `lease_end`, `lease`, `settle` and `timeout` (ms) of its last claim; `attempts` (claims since the last
-- recorded pass); `pause` (a wait, set because its workers died); `urgent` (access has ended since the last claim);
-- `longest` (ms: after how long a call has settled, by the slowest replica's settings); for each bucket `w:` (a wait)
-- and `f:` (how many passes in a row have failed there); `o:GRANT` (how often the end of a grant was put off).
local function target_key(target) return P .. 'target:' .. target end
local function grant_key(grant) return P .. 'grant:' .. grant end
local function job_key(job) return P .. 'job:' .. job end
local function todo_key(job) return P .. 'job:' .. job .. ':todo' end
local function requests_key(job) return P .. 'job:' .. job .. ':requests' end
local function retries_key(job) return P .. 'job:' .. job .. ':retries' end
local function targets_key(job) return P .. 'job:' .. job .. ':targets' end
local function order_key(job) return P .. 'job:' .. job .. ':order' end
local function lists_key(job) return P .. 'job:' .. job .. ':lists' end
local function ready_key(subscription, bucket) return P .. 'ready:' .. subscription .. ':' .. bucket end
local function lane_key(subscription) return P .. 'lane:' .. subscription end

-- Lists by which the broker finds grants and jobs: sorted sets of ids, all with one score, so that they are in the
-- order of the ids. A grant is in the lists of one family: `live`, `going` while it is REVOKING, or `past` once it has
-- ended. A revocation by selector reads only the first two, however many grants have ended in the last week.
local function grant_list(of, name) return P .. 'grants:' .. of .. ':' .. name end
local function job_list(name) return P .. 'jobs:' .. name end

-- A target is `/subscriptions/{guid}/…|{object id}`: its lane is its subscription.
local function lane_of(target)
  return string.sub(target, 16, 51)
end

-- I10: one event, with its sequence number, in the script that does what it tells of. It stays here until it is sealed.
local function audit(event)
  local sequence = redis.call('INCR', P .. 'audit:sequence')
  redis.call('XADD', P .. 'audit', '*', 'v', 1, 'sequence', sequence, 'time', now, 'event', event)
end

-- Raises a job's version and tells whoever watches. The event's id is a position in the broker's changes.
local function job_changed(job)
  redis.call('HINCRBY', job_key(job), 'version', 1)
  return redis.call('XADD', P .. 'events', 'MAXLEN', '~', 100000, '*', 'job', job)
end

-- What is known of a target's effects has changed: replicas lay that over what Azure lists until its reads have caught
-- up, and one that was not listening finds it in `recent`. Before the job that waits for it is over: whoever has heard
-- of that has heard of this.
local function effects_changed(target)
  redis.call('XADD', P .. 'events', 'MAXLEN', '~', 100000, '*', 'target', target)
  redis.call('ZADD', P .. 'recent', now, target)
end

-- The same from a template, about one grant; and about this job, where there is one, instead of the template's.
local function audit_about(template, grant, target, job)
  local event = cjson.decode(template)
  event.grant, event.job = grant, job or event.job
  event.cluster, event.principal = string.match(target, '^(.*)|(.*)$')
  audit(cjson.encode(event))
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

-- Notes in a target's record that a call without an answer may take effect until `when` (ms).
local function may_land_until(key, name, call, when)
  raise(key, 'd:' .. name, when)
  if call == 'put' then raise(key, 'p:' .. name, when) end
end

-- A loop over many rows goes on past one that fails (design §5.17): `damaged` keeps the failure for the caller, which
-- logs it. Returns whether `action` succeeded, and its result.
local damaged = {}
local function try(key, action, ...)
  local went_through, result = pcall(action, ...)
  if not went_through then
    local problem = type(result) == 'table' and result.err or tostring(result)
    table.insert(damaged, key .. ': ' .. problem)
  end
  return went_through, result
end
-- After how long (ms) an unreadable row is looked at again.
local PUT_OFF = 60000

-- A difference up to this (ms) does not mean that the clock has gone back: clocks are slewed.
local SLEW = 1000

-- No stored time is believed beyond what it can be (design §5.15). After a failover the clock may be behind, and a wait
-- from before would last for the whole difference. So a wait is stored with its length. A wait that ends later than its
-- length from now is ignored.
local function wait_of(length)
  return string.format('%d %d', now + length, length)
end
-- When a wait ends (ms); 0 if it is over or cannot be believed.
local function end_of_wait(stored)
  local end_, length = string.match(stored or '', '^(%d+) (%d+)$')
  if not end_ or tonumber(end_) <= now or tonumber(end_) - now > tonumber(length) + SLEW then return 0 end
  return tonumber(end_)
end
-- For how long (ms) it still lasts; 0 if it is over or cannot be believed.
local function left_of_wait(stored)
  return math.max(0, end_of_wait(stored) - now)
end

-- A lease holds while it has a token, and its end lies in the future by no more than the lease is long.
local function is_leased(record)
  local left = number(record.lease_end) - now
  return (record.token or '') ~= '' and left > 0 and left <= number(record.lease) + SLEW
end

-- By when (ms) calls without an answer have taken effect or never will. A worker gives up its last call before its
-- lease ends. If the clock has leapt ahead meanwhile, the worker may just have sent one; so the call timeout counts
-- from now.
local function calls_settle(record, settle)
  local lease_end = math.min(number(record.lease_end), now + number(record.lease))
  return math.max(now + number(record.timeout), lease_end) + settle
end

-- A bucket of a target waits, never the whole target (design §5.14). Each bucket has its own queue, and its own time in
-- `due`, as member `deletes:TARGET` or `writes:TARGET`. The member `lease:TARGET` is the end of a lease.
local BUCKETS = { 'deletes', 'writes' }

local function due_at(kind, target, when)
  redis.call('ZADD', P .. 'due', when, kind .. ':' .. target)
end

-- Puts a target into the queue of a bucket. Not for a leased target: `record`, or the lease's end, queues that.
local function enqueue(target, bucket)
  local lane = lane_of(target)
  redis.call('SADD', P .. 'lanes', lane)
  redis.call('ZADD', ready_key(lane, bucket), 'NX', now, target)
  redis.call('ZREM', P .. 'due', bucket .. ':' .. target)
end

-- Takes a target out of the queue of a bucket.
local function dequeue(target, bucket)
  redis.call('ZREM', ready_key(lane_of(target), bucket), target)
  redis.call('ZREM', P .. 'due', bucket .. ':' .. target)
end

-- Schedules a bucket of a target for the time `when` (ms), or queues it now if that has passed.
local function look_at(target, bucket, when)
  if when > now then due_at(bucket, target, when) else enqueue(target, bucket) end
end

-- Leaves the target to the worker that has its lease, or to the lease's end. That end may have left `due` already: if
-- the clock has gone back, a lease that was over holds again.
local function wait_for_lease(target, record)
  due_at('lease', target, record.lease_end)
end

-- Whether a grant in this state calls for access.
local function is_live(state)
  return state == 'PENDING' or state == 'ACTIVE'
end

-- Whether a target has live grants. A grant that cannot be read counts as live: `claim` reports it.
local function has_live_grants(record)
  for field in pairs(record) do
    local grant = string.match(field, '^g:(.*)$')
    local state = grant and redis.pcall('HGET', grant_key(grant), 'state')
    if grant and (type(state) == 'table' or is_live(state)) then return true end
  end
  return false
end

-- What a lane's bucket holds now. A moment that lies ahead says nothing: the clock has gone back.
local function tokens_left(lane, bucket, budget)
  local held = redis.call('HMGET', lane_key(lane), bucket .. ':tokens', bucket .. ':at')
  local passed = now - number(held[2])
  if not held[1] or passed < -SLEW then return budget.capacity end
  return math.min(budget.capacity, number(held[1]) + math.max(0, passed) / 1000 * budget.per_second)
end

-- For how long (ms) Azure has told a lane's bucket to wait; 0 if it is open.
local function closed_for(lane, bucket)
  return left_of_wait(redis.call('HGET', lane_key(lane), bucket .. ':closed'))
end

-- Clears all waits of a target, and the counts from which the next ones would be made.
local function clear_waits(target)
  local key = target_key(target)
  redis.call('HSET', key, 'attempts', 0)
  redis.call('HDEL', key, 'pause', 'w:deletes', 'w:writes', 'f:deletes', 'f:writes')
end

-- Notes that the desired state of a target has changed: raises its generation and schedules it. If access ends
-- (`access_ends`), this clears all waits of the target. Otherwise the change waits as the bucket `writes` does.
local function desired_state_changed(target, access_ends)
  local key = target_key(target)
  redis.call('HINCRBY', key, 'generation', 1)
  redis.call('PERSIST', key)
  if access_ends then
    redis.call('HSET', key, 'urgent', 1)
    clear_waits(target)
  end
  local record = fields(redis.call('HGETALL', key))
  if is_leased(record) then return wait_for_lease(target, record) end
  if not access_ends then
    look_at(target, 'writes', math.max(end_of_wait(record.pause), end_of_wait(record['w:writes'])))
    return
  end
  enqueue(target, 'deletes')
  -- Assignments that other grants still call for may need another end.
  if has_live_grants(record) then enqueue(target, 'writes') else dequeue(target, 'writes') end
end

-- Schedules an ended grant or job for deletion, in `retired` as `grant:ID` or `job:ID`; never earlier than before.
local function retire(member, after)
  redis.call('ZADD', P .. 'retired', 'GT', now + after, member)
end

-- A job is over: whoever watches is told, and it is kept for a while.
local function finish_job(job, state)
  local key = job_key(job)
  redis.call('HSET', key, 'state', state, 'finished', now)
  redis.call('HDEL', key, 'next')
  redis.call('HSET', key, 'token', job_changed(job))
  retire('job:' .. job, a.retention)
end

-- Makes a job with these targets, [{target, grants, principal}]; `principal` is JSON, as the grants' bodies have it.
-- Of each target its hash has `s:` (state), `a:` (attempts), `g:` (grants), `q:` (principal), `n:` (next attempt), `x:`
-- (failure), `f:` (the names of effects, each followed by a comma), and of each of these `e:NAME:`, before its name.
-- `waits_as` is the kind by which its targets conclude it; `over`: it has nothing to wait for.
local function make_job(job, body, kind, targets, waits_as, over)
  local key = job_key(job)
  local state = over and 'SUCCEEDED' or 'QUEUED'
  redis.call('HSET', key, 'v', 1, 'body', body, 'kind', kind, 'state', state, 'created', now, 'attempts', 0,
    'total', #targets, 'done', over and #targets or 0, 'of:' .. state, #targets, 'version', 0)
  local lists, principals, clusters = { 'all' }, 0, 0
  local listed = {}
  for _, row in ipairs(targets) do
    local place, oid = string.match(row.target, '^(.*)|(.*)$')
    if not listed[oid] then principals = principals + 1; table.insert(lists, 'principal:' .. oid) end
    if not listed[place] then clusters = clusters + 1; table.insert(lists, 'cluster:' .. place) end
    listed[oid], listed[place] = true, true
    -- A blank, which is in no id, sorts before whatever may follow in a longer cluster's.
    redis.call('ZADD', order_key(job), 0, place .. ' ' .. oid)
    redis.call('HSET', targets_key(job), 's:' .. row.target, state, 'a:' .. row.target, 0,
      'g:' .. row.target, cjson.encode(row.grants), 'q:' .. row.target, row.principal)
    if not over then
      redis.call('SADD', todo_key(job), row.target)
      redis.call('HSET', target_key(row.target), 'j:' .. job, cjson.encode({ kind = waits_as, grants = row.grants }))
    end
  end
  -- What all targets have in common is the job's own.
  if principals == 1 then redis.call('HSET', key, 'principal', targets[1].principal) end
  if clusters == 1 then redis.call('HSET', key, 'cluster', string.match(targets[1].target, '^(.*)|')) end
  if given(a.request_id) then table.insert(lists, 'request:' .. a.caller .. ':' .. a.request_id) end
  table.insert(lists, 'requested_by:' .. cjson.decode(body).requested_by)
  -- Not in its record: a job of many targets is in many lists, and read more often than it is forgotten.
  redis.call('SET', lists_key(job), cjson.encode(lists))
  for _, name in ipairs(lists) do redis.call('ZADD', job_list(name), 0, job) end
  if over then finish_job(job, 'SUCCEEDED') else job_changed(job) end
end

-- What a request is answered with is kept as long as its record, however long ago it was over.
local function outlive_request(job, grant)
  for _, member in ipairs({ 'job:' .. job, 'grant:' .. grant }) do
    redis.call('ZADD', P .. 'retired', 'XX', 'GT', now + a.request_life, member)
  end
end

-- I3: the record of an idempotency key. Returns an answer if the key was used before.
local function replay()
  local key = P .. 'req:' .. a.caller .. ':' .. a.request_id
  local known = fields(redis.call('HGETALL', key))
  if not known.hash then return nil end
  if known.hash ~= a.hash then return { 'reused', known.job } end
  -- The replay renews the record's life, and that of what it answers with; it is a write, so that waiting for
  -- replicas covers it.
  redis.call('HSET', key, 'seen', now)
  local life = redis.call('PTTL', key)
  if life > 0 and life < a.request_life then redis.call('PEXPIRE', key, a.request_life) end
  outlive_request(known.job, known.grant or '')
  if known.idle then return { 'unchanged', known.job, known.grant or '' } end
  return { 'replayed', known.job, known.grant or '' }
end

local function remember_request(job, grant, over)
  local key = P .. 'req:' .. a.caller .. ':' .. a.request_id
  redis.call('HSET', key, 'v', 1, 'hash', a.hash, 'job', job, 'grant', grant)
  if over then
    redis.call('PEXPIRE', key, a.request_life)
    outlive_request(job, grant)
  else
    redis.call('SADD', requests_key(job), key)
  end
end

-- How many records of revocations that changed nothing are kept of one caller. A caller may send these however full Redis
-- is, so there is a bound. Whoever sends one again after its record is gone gets the same answer as a new request.
local MOST_IDLE = 1000

-- Remembers a revocation that changes nothing: `job` is one from before.
local function remember_idle(job, grant)
  local key, list = P .. 'req:' .. a.caller .. ':' .. a.request_id, P .. 'idle:' .. a.caller
  redis.call('HSET', key, 'v', 1, 'hash', a.hash, 'job', job, 'grant', grant, 'idle', 1)
  redis.call('PEXPIRE', key, a.request_life)
  outlive_request(job, grant)
  redis.call('LPUSH', list, a.request_id)
  redis.call('PEXPIRE', list, a.request_life)
  while redis.call('LLEN', list) > MOST_IDLE do
    local oldest = P .. 'req:' .. a.caller .. ':' .. redis.call('RPOP', list)
    -- The id may have been used for something else since.
    if redis.call('HEXISTS', oldest, 'idle') == 1 then redis.call('DEL', oldest) end
  end
end

-- Sets the state of a job on one of its targets, and when (ms) that target is tried again.
local function job_target_is(job, target, state, again_at)
  local key, targets = job_key(job), targets_key(job)
  redis.call('HINCRBY', key, 'of:' .. redis.call('HGET', targets, 's:' .. target), -1)
  redis.call('HINCRBY', key, 'of:' .. state, 1)
  redis.call('HSET', targets, 's:' .. target, state)
  if again_at then
    redis.call('HSET', targets, 'n:' .. target, again_at)
    redis.call('ZADD', retries_key(job), again_at, target)
  else
    redis.call('HDEL', targets, 'n:' .. target)
    redis.call('ZREM', retries_key(job), target)
  end
end

-- Where a job stands that a worker has begun: waiting to try again when it does so on every target that is left to it,
-- and until the soonest of them.
local function job_goes_on(job)
  local key = job_key(job)
  local of = redis.call('HMGET', key, 'of:QUEUED', 'of:RUNNING', 'of:RETRYING')
  local soonest = redis.call('ZRANGE', retries_key(job), 0, 0, 'WITHSCORES')[2]
  if number(of[1]) + number(of[2]) == 0 and number(of[3]) > 0 then
    redis.call('HSET', key, 'state', 'RETRYING', 'next', soonest)
  else
    redis.call('HSET', key, 'state', 'RUNNING')
    redis.call('HDEL', key, 'next')
  end
  job_changed(job)
end

-- Ends what a job had to do on one target; the job is over when no target is left.
local function finish_job_target(job, target, state, failure)
  local was_left = redis.call('SREM', todo_key(job), target) == 1
  redis.call('HDEL', target_key(target), 'j:' .. job)
  if not was_left then return end
  job_target_is(job, target, state, nil)
  redis.call('HSET', targets_key(job), 'x:' .. target, failure)
  local key = job_key(job)
  redis.call('HINCRBY', key, 'done', 1)
  if failure ~= '' then redis.call('HSET', key, 'error', failure) end
  if redis.call('SCARD', todo_key(job)) > 0 then
    job_goes_on(job)
    return
  end
  local record = fields(redis.call('HGETALL', key))
  local final = 'SUCCEEDED'
  if number(record['of:SUPERSEDED']) > 0 then final = 'SUPERSEDED' end
  if number(record['of:FAILED']) > 0 then final = 'FAILED' end
  finish_job(job, final)
  for _, request in ipairs(redis.call('SMEMBERS', requests_key(job))) do
    redis.call('PEXPIRE', request, a.request_life)
  end
  redis.call('DEL', requests_key(job))
end

-- The names of the lists that a grant is in. They are only an index. If they cannot be read, access ends all the same
-- (I5, I6), and `forget` reports the damaged record.
local function lists_of(grant)
  local is_json, names = pcall(cjson.decode, redis.call('HGET', grant_key(grant), 'lists') or '[]')
  return is_json and type(names) == 'table' and names or {}
end

-- Moves a grant to the lists of another family, and takes it off the expiries, because it no longer calls for access.
local function move_to(grant, family)
  for _, name in ipairs(lists_of(grant)) do
    for _, other in ipairs({ 'live', 'going' }) do
      -- A list key of another type must not stop an ending: lists are only an index.
      if other ~= family and redis.pcall('ZREM', grant_list(other, name), grant) == 1 then
        redis.pcall('ZADD', grant_list(family, name), 0, grant)
      end
    end
  end
  redis.call('ZREM', P .. 'expiries', grant)
end

-- Moves a grant that was live to the lists of REVOKING grants.
local function leave_the_living(grant)
  move_to(grant, 'going')
end

-- Ends a grant for good.
local function finish_grant(grant, ending)
  local key = grant_key(grant)
  local target = redis.call('HGET', key, 'target')
  redis.call('HSET', key, 'state', 'ENDED', 'ending', ending, 'updated', now, 'ended', now)
  move_to(grant, 'past')
  retire('grant:' .. grant, a.retention)
  redis.call('HDEL', target_key(target), 'g:' .. grant, 'o:' .. grant)
end

-- Takes a live grant's desired state back.
local function revoke_grant(grant, ending, by, job)
  leave_the_living(grant)
  redis.call('HSET', grant_key(grant), 'state', 'REVOKING', 'ending', ending, 'updated', now, 'ended_by', by,
    'job', job)
end

-- The end that a request asks for: ms, or '' for never.
local function asked_end()
  if given(a.ttl) then return now + a.ttl end
  if given(a.expire) then return a.expire end
  return ''
end

-- Moves a live grant's end to the later of its own and another; says whether that changes it.
local function move_end(grant, another)
  local key = grant_key(grant)
  local own = redis.call('HGET', key, 'expire') or ''
  if own == '' or (another ~= '' and another <= tonumber(own)) then return false end
  redis.call('HSET', key, 'expire', another, 'updated', now)
  if another == '' then
    redis.call('ZREM', P .. 'expiries', grant)
  else
    redis.call('ZADD', P .. 'expiries', another, grant)
  end
  return true
end

-- Who has a grant, as JSON.
local function principal_of(grant)
  return cjson.encode(cjson.decode(redis.call('HGET', grant_key(grant), 'body')).principal)
end

-- Whether a job waits for a target because of one of its grants.
local function is_awaited(target, grant)
  local record = redis.call('HGETALL', target_key(target))
  for i = 1, #record, 2 do
    if string.match(record[i], '^j:') then
      for _, awaited in ipairs(cjson.decode(record[i + 1]).grants) do
        if awaited == grant then return true end
      end
    end
  end
  return false
end
