-- Writes the audit event of a refused request, or counts it (I10); and tells what was counted before, once it is time.
--
-- Flags: allow-oom; a refusal is written down whatever Redis has room for.
-- Argument: token (of this event alone), remembered (ms; for how long the same event may be sent again), audit_event (''
-- only tells), actor, count (how many refusals the event stands for), broker (the broker's own name), per_minute (how
-- many events of refusals one caller has each minute), share (how many events of refusals there are at most in any `over`
-- ms, the counts of all callers together not included), over.
-- Invariant: a refusal that is sent again is written or counted once. Each refusal is an event of its own, or in exactly
-- one count that is told later.

-- Callers of the last minute, with the time (ms) at which what was counted of each is told.
local told_at = P .. 'audit:counts'
-- What was counted of all callers together, since the share was used up: no caller has an empty name.
local EVERYBODY = ''
local MINUTE = 60000

local function minute_key(actor) return P .. 'audit:refused:' .. actor end

-- Takes one event out of the share. It is a bucket of half the share, which half the share flows into.
local function takes_share()
  local key = P .. 'audit:share'
  local held = redis.call('HMGET', key, 'left', 'at')
  local passed, capacity = now - number(held[2]), a.share / 2
  local left = capacity
  if held[1] and passed >= -SLEW then
    left = math.min(capacity, number(held[1]) + math.max(0, passed) * capacity / a.over)
  end
  if left < 1 then return false end
  redis.call('HSET', key, 'left', left - 1, 'at', now)
  return true
end

local function count(actor, many)
  redis.call('ZADD', told_at, 'NX', now + MINUTE, actor)
  redis.call('HINCRBY', minute_key(actor), 'counted', many)
end

-- Ends a caller's minute.
local function tell(actor)
  -- A count that cannot be read is worth less than all that come after it.
  local counted = redis.pcall('HGET', minute_key(actor), 'counted')
  redis.call('DEL', minute_key(actor))
  redis.call('ZREM', told_at, actor)
  if type(counted) ~= 'string' then return end
  if actor ~= EVERYBODY and not takes_share() then return count(EVERYBODY, counted) end
  audit(cjson.encode({ actor = actor == EVERYBODY and a.broker or actor, action = 'audit/refusals', outcome = 'REFUSED',
    details = { refused = counted, seconds = '60' } }))
end

-- A time that lies further ahead than a minute is from a clock that was ahead.
for _, due in ipairs({ { '-inf', now }, { now + MINUTE + SLEW, '+inf' } }) do
  for _, actor in ipairs(redis.call('ZRANGEBYSCORE', told_at, due[1], due[2], 'LIMIT', 0, 100)) do tell(actor) end
end
if a.audit_event == '' then return end

-- If the key exists, the event was sent again because its answer was lost: it is written already.
local written = P .. 'audit:written:' .. a.token
if redis.call('EXISTS', written) == 1 then return end
local minute = minute_key(a.actor)
if number(redis.call('HGET', minute, 'events')) < a.per_minute and takes_share() then
  redis.call('ZADD', told_at, 'NX', now + MINUTE, a.actor)
  redis.call('HINCRBY', minute, 'events', 1)
  audit(a.audit_event)
else
  count(a.actor, a.count)
end
redis.call('SET', written, 1, 'PX', a.remembered)
