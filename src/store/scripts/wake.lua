-- Queues the targets whose time has come: leases that ended, retries, settle deadlines.
--
-- Flags: allow-oom.
-- Argument: limit.
-- Returns {how many members of `due` it looked at, by how many ms the clock has gone back since the last look, the
-- members that it could not read}. It skips the unreadable ones, and looks at them again in a minute.
-- Invariant: a target that has a record keeps a place in a queue or in `due`.

-- The times in `due` come from the clock that wrote them. If a failover has set the clock back, this script moves the
-- times by the same amount. Otherwise DELETEs would wait for the difference.
local clock_key = P .. 'clock'
local seen = number(redis.call('GET', clock_key))
local went_back = seen - now > SLEW and seen - now or 0
local function move_back(key)
  local rows = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #rows, 2 do redis.call('ZADD', key, 'XX', number(rows[i + 1]) - went_back, rows[i]) end
end
if went_back > 0 then
  try(P .. 'due', move_back, P .. 'due')
  -- The queues as well: otherwise targets that wait there would stand behind all that come later.
  for _, lane in ipairs(redis.call('SMEMBERS', P .. 'lanes')) do
    for _, bucket in ipairs(BUCKETS) do try(ready_key(lane, bucket), move_back, ready_key(lane, bucket)) end
  end
end
-- Once a second is enough, and saves Redis the other writes.
if went_back > 0 or now - seen > 1000 then redis.call('SET', clock_key, now) end

local function wake_one(member)
  local kind, target = string.match(member, '^(%a+):(.*)$')
  if not kind then error('the member does not begin with `lease:`, `deletes:` or `writes:`') end
  local held = redis.call('HMGET', target_key(target), 'token', 'lease_end', 'lease', 'generation', 'pause',
    'w:deletes', 'w:writes')
  local is_held = is_leased({ token = held[1], lease_end = held[2], lease = held[3] })
  if not held[4] then
    redis.call('ZREM', P .. 'due', member)
  elseif is_held then
    -- `record` says when each bucket is looked at next. If the worker never records, the end of its lease does.
    wait_for_lease(target, { lease_end = held[2] })
    if kind ~= 'lease' then redis.call('ZREM', P .. 'due', member) end
  elseif kind ~= 'lease' then
    enqueue(target, kind)
  elseif end_of_wait(held[5]) > 0 then
    due_at(kind, target, end_of_wait(held[5]))
  else
    -- What its worker still had to do is not known, so both buckets are looked at.
    look_at(target, 'deletes', end_of_wait(held[6]))
    look_at(target, 'writes', end_of_wait(held[7]))
    redis.call('ZREM', P .. 'due', member)
  end
end

local members = redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, a.limit)
for _, member in ipairs(members) do
  if not try(P .. 'due ' .. member, wake_one, member) then
    redis.call('ZADD', P .. 'due', 'XX', now + PUT_OFF, member)
  end
end
return { #members, went_back, damaged }
