-- Writes down a pass's intents before its first call, and takes its calls out of the lane's budget (I4, I5).
--
-- Flags: allow-oom.
-- Argument: target, token, generation (that claim returned), rows [{name, call, body}], budget {writes, deletes:
-- {capacity, per_second}}.
-- Returns {'begun'}; {'lost'} if the lease is over or another worker has it; {'moved'} if access has ended since the
-- claim, or if the desired state has changed and the intents would take something away; {'wait', ms, writes, deletes} if
-- the lane's budget does not reach, or Azure said to wait: for how long, and how many calls of each kind could go now.

local key = target_key(a.target)
local held = redis.call('HMGET', key, 'token', 'lease_end', 'generation', 'lease', 'urgent')
local is_ours = held[1] == a.token and is_leased({ token = held[1], lease_end = held[2], lease = held[4] })
if not is_ours then return { 'lost' } end

-- Sent again, because the answer was lost: they are written, and paid for.
local written = #a.rows > 0
for _, row in ipairs(a.rows) do
  written = written and redis.call('HGET', key, 'i:' .. row.name) == row.call .. ':' .. a.token
end
if written then return { 'begun' } end

-- An outdated plan must not take anything away. It may still give, as long as no access has ended since the claim: then a
-- live grant calls for each of its PUTs. Otherwise a steady stream of requests could keep a target without access for ever.
local only_gives = true
for _, row in ipairs(a.rows) do only_gives = only_gives and row.call == 'put' end
local has_moved = number(held[3]) ~= a.generation
if has_moved and not (only_gives and not held[5]) then return { 'moved' } end

local lane = lane_of(a.target)
local needs = { writes = 0, deletes = 0 }
for _, row in ipairs(a.rows) do
  local bucket = row.call == 'put' and 'writes' or 'deletes'
  needs[bucket] = needs[bucket] + 1
end
local wait, free = 0, {}
for bucket, need in pairs(needs) do
  local budget = a.budget[bucket]
  local closed = closed_for(lane, bucket)
  free[bucket] = closed > 0 and 0 or tokens_left(lane, bucket, budget)
  if need > 0 and closed > 0 then
    wait = math.max(wait, closed)
  elseif free[bucket] < need then
    wait = math.max(wait, math.ceil((math.min(need, budget.capacity) - free[bucket]) / budget.per_second * 1000), 1)
  end
end
if wait > 0 then return { 'wait', wait, math.floor(free.writes), math.floor(free.deletes) } end
for bucket, need in pairs(needs) do
  if need > 0 then
    redis.call('HSET', lane_key(lane), bucket .. ':tokens', string.format('%.3f', free[bucket] - need),
      bucket .. ':at', now)
  end
end

-- Whatever it waited for before: what is intended now is not to expire.
redis.call('PERSIST', key)
for _, row in ipairs(a.rows) do
  redis.call('HSETNX', key, 'e:' .. row.name, row.body)
  -- A DELETE that is still open may have done its work, or may do it yet: that is not forgotten with its intent.
  local before = redis.call('HGET', key, 'i:' .. row.name)
  if before and string.match(before, '^delete:') then redis.call('HSET', key, 'm:' .. row.name, 1) end
  redis.call('HSET', key, 'i:' .. row.name, row.call .. ':' .. a.token)
end
if #a.rows > 0 then effects_changed(a.target) end
return { 'begun' }
