-- Forgets what was over long enough ago, with its places in the lists.
--
-- Flags: allow-oom.
-- Argument: limit.
-- Returns how many grants and jobs were forgotten.

local forgotten = redis.call('ZRANGEBYSCORE', P .. 'retired', '-inf', now, 'LIMIT', 0, a.limit)
for _, member in ipairs(forgotten) do
  local kind, id = string.match(member, '^(%a+):(.*)$')
  local key = kind == 'grant' and grant_key(id) or job_key(id)
  local names = redis.call('HGET', key, 'lists')
  for _, name in ipairs(names and cjson.decode(names) or {}) do
    redis.call('ZREM', kind == 'grant' and grant_list('past', name) or job_list(name), id)
  end
  redis.call('DEL', key)
  if kind == 'job' then redis.call('DEL', targets_key(id), todo_key(id), requests_key(id), retries_key(id)) end
  redis.call('ZREM', P .. 'retired', member)
end
return #forgotten
