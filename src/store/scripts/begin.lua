-- Writes down a pass's intents before its first call, and takes its calls out of the lane's budget (I4, I5).
--
-- Flags: allow-oom.
-- Argument: target, token, generation (that claim returned), rows [{name, call, body}], budget {writes, deletes:
-- {capacity, per_second}}.
-- Returns {'begun'}; {'lost'} where the lease is somebody else's or over; {'moved'} where the wishes have changed
-- since claim; {'wait', ms} where the lane's budget does not reach.

local key = target_key(a.target)
local held = redis.call('HMGET', key, 'token', 'lease_end', 'generation')
if held[1] ~= a.token or number(held[2]) <= now then return { 'lost' } end
if number(held[3]) ~= a.generation then return { 'moved' } end

local lane = lane_key(lane_of(a.target))
local needs = { writes = 0, deletes = 0 }
for _, row in ipairs(a.rows) do
  local bucket = row.call == 'put' and 'writes' or 'deletes'
  needs[bucket] = needs[bucket] + 1
end
local left = {}
for bucket, need in pairs(needs) do
  local budget = a.budget[bucket]
  local was = redis.call('HMGET', lane, bucket .. ':tokens', bucket .. ':at')
  local tokens = budget.capacity
  if was[1] then
    tokens = math.min(budget.capacity, number(was[1]) + (now - number(was[2])) / 1000 * budget.per_second)
  end
  -- A pass that needs more than the bucket ever holds goes when the bucket is full.
  if need > 0 and tokens < math.min(need, budget.capacity) then
    return { 'wait', math.ceil((math.min(need, budget.capacity) - tokens) / budget.per_second * 1000) }
  end
  if need > 0 then left[bucket] = tokens - need end
end
for bucket, tokens in pairs(left) do
  redis.call('HSET', lane, bucket .. ':tokens', string.format('%.3f', tokens), bucket .. ':at', now)
end

for _, row in ipairs(a.rows) do
  redis.call('HSETNX', key, 'e:' .. row.name, row.body)
  redis.call('HSET', key, 'i:' .. row.name, row.call .. ':' .. a.token)
end
return { 'begun' }
