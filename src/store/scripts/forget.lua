-- Forgets what was over long enough ago, with its places in the lists.
--
-- Flags: allow-oom.
-- Argument: limit, retention (ms).
-- Returns how many grants and jobs were looked at, and which of them cannot be read: they are kept for as long again, so
-- that they keep no other from being forgotten.

local function forget(member)
  local kind, id = string.match(member, '^(%a+):(.*)$')
  local is_grant = kind == 'grant'
  local key = is_grant and grant_key(id) or job_key(id)
  local lists = is_grant and redis.call('HGET', key, 'lists') or not is_grant and redis.call('GET', lists_key(id))
  for _, name in ipairs(cjson.decode(lists or '[]')) do
    if is_grant then
      -- Lists that could not be read when the grant ended still have it in the other families.
      for _, family in ipairs({ 'live', 'going', 'past' }) do redis.call('ZREM', grant_list(family, name), id) end
    else
      redis.call('ZREM', job_list(name), id)
    end
  end
  redis.call('DEL', key)
  if not is_grant then
    redis.call('DEL', targets_key(id), order_key(id), lists_key(id), todo_key(id), requests_key(id), retries_key(id))
  end
  redis.call('ZREM', P .. 'retired', member)
end

local due = redis.call('ZRANGEBYSCORE', P .. 'retired', '-inf', now, 'LIMIT', 0, a.limit)
for _, member in ipairs(due) do
  if not try(P .. member, forget, member) then retire(member, a.retention) end
end
return { #due, damaged }
