-- Lists grants or jobs, newest first: those of the shortest of some lists, each of which holds all that are asked for.
--
-- Flags: allow-oom; reading must not wait for memory.
-- Argument: record ('grant' or 'job'), families (prefixes of lists, such as 'grants:live:': the union of them is
-- listed), names (of lists), before (an id; '' for the newest), count.
-- Returns [[id, record], ..] with each record as a flat list of fields and values; fewer than count where there are no
-- more.

local shortest, length = nil, nil
for _, name in ipairs(a.names) do
  local rows = 0
  for _, family in ipairs(a.families) do rows = rows + redis.call('ZCARD', P .. family .. name) end
  if not length or rows < length then shortest, length = name, rows end
end

local ids = {}
local newest = a.before == '' and '+' or '(' .. a.before
for _, family in ipairs(a.families) do
  for _, id in ipairs(redis.call('ZREVRANGEBYLEX', P .. family .. shortest, newest, '-', 'LIMIT', 0, a.count)) do
    table.insert(ids, id)
  end
end
table.sort(ids, function(one, other) return one > other end)

local found = {}
for i = 1, math.min(#ids, a.count) do
  local key = a.record == 'grant' and grant_key(ids[i]) or job_key(ids[i])
  table.insert(found, { ids[i], redis.call('HGETALL', key) })
end
return found
