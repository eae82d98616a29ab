-- Deletes grants and jobs that ended longer ago than the retention, and removes them from the lists.
--
-- Flags: allow-oom.
-- Argument: limit, retention (ms).
-- Returns {how many members of `retired` it looked at, the members that it could not read}. An unreadable member stays
-- for another retention, so that it does not keep others from being deleted.
-- Invariant: a row that cannot be read is never deleted, and never stops the deletion of the others.

local function forget(member)
  local kind, id = string.match(member, '^(%a+):(.*)$')
  if kind ~= 'grant' and kind ~= 'job' then error('the member is neither a grant nor a job') end
  local is_grant = kind == 'grant'
  local key = is_grant and grant_key(id) or job_key(id)
  local lists = is_grant and redis.call('HGET', key, 'lists') or not is_grant and redis.call('GET', lists_key(id))
  local names = cjson.decode(lists or '[]')
  for _, name in ipairs(names) do
    if type(name) ~= 'string' then error('the names of its lists cannot be read') end
  end
  -- If the names of its lists could not be read when the grant ended, it is still in the lists of another family.
  local families = is_grant and { 'live', 'going', 'past' } or { 'jobs' }
  for _, name in ipairs(names) do
    for _, family in ipairs(families) do
      -- A list key of another type must not stop the deletion.
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
