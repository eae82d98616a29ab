-- Forgets what was over long enough ago, with its places in the lists.
--
-- Flags: allow-oom.
-- Argument: limit, retention (ms).
-- Returns how many grants and jobs were looked at, and the keys of those whose lists cannot be read, or what is no grant
-- and no job: they are kept for as long again, so that they keep no other from being forgotten.

-- The names of the lists that it is in; nil where they cannot be read.
local function lists_of(kind, id)
  local held = nil
  if kind == 'grant' then held = redis.pcall('HGET', grant_key(id), 'lists') end
  if kind == 'job' then held = redis.pcall('GET', lists_key(id)) end
  if held == false then return {} end
  local is_json, names = pcall(cjson.decode, held)
  if not is_json or type(names) ~= 'table' then return nil end
  for _, name in ipairs(names) do
    if type(name) ~= 'string' then return nil end
  end
  return names
end

local due = redis.call('ZRANGEBYSCORE', P .. 'retired', '-inf', now, 'LIMIT', 0, a.limit)
local damaged = {}
for _, member in ipairs(due) do
  local kind, id = string.match(member, '^(%a+):(.*)$')
  local is_grant = kind == 'grant'
  local key = id and (is_grant and grant_key(id) or job_key(id)) or member
  local names = lists_of(kind, id)
  if names then
    for _, name in ipairs(names) do
      -- One list that is none keeps nothing from going.
      redis.pcall('ZREM', is_grant and grant_list('past', name) or job_list(name), id)
    end
    redis.call('DEL', key)
    if not is_grant then
      redis.call('DEL', targets_key(id), order_key(id), lists_key(id), todo_key(id), requests_key(id), retries_key(id))
    end
    redis.call('ZREM', P .. 'retired', member)
  else
    retire(member, a.retention)
    table.insert(damaged, key)
  end
end
return { #due, damaged }
