-- Forgets what was over long enough ago, with its places in the lists.
--
-- Flags: allow-oom.
-- Argument: limit, retention (ms).
-- Returns how many grants and jobs were looked at, and which of them cannot be read, or are no grant and no job: they are
-- kept for as long again, so that they keep no other from being forgotten.

local function forget(member)
  local kind, id = string.match(member, '^(%a+):(.*)$')
  if kind ~= 'grant' and kind ~= 'job' then error('it is no grant and no job') end
  local is_grant = kind == 'grant'
  local key = is_grant and grant_key(id) or job_key(id)
  local lists = is_grant and redis.call('HGET', key, 'lists') or not is_grant and redis.call('GET', lists_key(id))
  local names = cjson.decode(lists or '[]')
  for _, name in ipairs(names) do
    if type(name) ~= 'string' then error('its lists cannot be read') end
  end
  -- Lists that could not be read when the grant ended still have it in the other families.
  local families = is_grant and { 'live', 'going', 'past' } or { 'jobs' }
  for _, name in ipairs(names) do
    for _, family in ipairs(families) do
      -- One list that is none keeps nothing from going.
      redis.pcall('ZREM', is_grant and grant_list(family, name) or job_list(name), id)
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
  if not try(P .. 'retired ' .. member, forget, member) then retire(member, a.retention) end
end
return { #due, damaged }
