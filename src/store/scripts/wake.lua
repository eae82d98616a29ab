-- Queues the targets whose time has come: leases that ended, retries, settle deadlines.
--
-- Flags: allow-oom.
-- Argument: limit.
-- Returns how many were queued.

local woken = 0
for _, target in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, a.limit)) do
  local held = redis.call('HMGET', target_key(target), 'token', 'lease_end', 'not_before', 'bucket', 'generation')
  if not held[5] then
    redis.call('ZREM', P .. 'due', target)
  elseif is_leased({ token = held[1], lease_end = held[2] }) then
    redis.call('ZADD', P .. 'due', held[2], target)
  elseif number(held[3]) > now then
    redis.call('ZADD', P .. 'due', held[3], target)
  else
    enqueue(target, held[4] or 'deletes')
    woken = woken + 1
  end
end
return woken
