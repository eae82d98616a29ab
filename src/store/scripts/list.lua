-- Lists grants or jobs, newest first: those that are in all of some lists and, where the caller sees only its own, in one
-- of its own lists.
--
-- Flags: allow-oom; reading must not wait for memory.
-- Argument: record ('grant' or 'job'), families (prefixes of lists, such as 'grants:live:'; the script lists their
-- union), names (of lists), own (names of lists, of which one is enough; none: everything is seen), before (an id; ''
-- for the newest), count.
-- Returns [[id, record], ..] of the newest `count` of the shortest list, or fewer if there are no more. Each record is
-- a flat list of fields and values, or nil if the id is not in all of the lists, or Redis's error as text if the key
-- does not hold a hash.
-- Invariant: reads at most `count` ids of each list that it walks, and walks the caller's own lists where these are the
-- shortest. So the cost for a caller that sees only its own does not grow with what others have.

-- An id has to be in one list of each group.
local groups = {}
for _, name in ipairs(a.names) do table.insert(groups, { name }) end
if #a.own > 0 then table.insert(groups, a.own) end

local shortest, length = nil, nil
for _, group in ipairs(groups) do
  local rows = 0
  for _, name in ipairs(group) do
    for _, family in ipairs(a.families) do rows = rows + redis.call('ZCARD', P .. family .. name) end
  end
  if not length or rows < length then shortest, length = group, rows end
end

local from = a.before == '' and '+' or '(' .. a.before
local rests = {}
for _, name in ipairs(shortest) do
  for _, family in ipairs(a.families) do
    local ids = redis.call('ZREVRANGEBYLEX', P .. family .. name, from, '-', 'LIMIT', 0, a.count)
    table.insert(rests, { ids = ids, at = 1 })
  end
end

-- Compares ids by their bytes, as Redis does. Lua's own `>` depends on the server's locale: in Danish `aa` follows `z`.
local function is_newer(one, other)
  for i = 1, #one do
    local left, right = string.byte(one, i), string.byte(other, i) or 0
    if left ~= right then return left > right end
  end
  return false
end

local function take_newest()
  local newest = nil
  for _, rest in ipairs(rests) do
    local id = rest.ids[rest.at]
    if id and (not newest or is_newer(id, newest.ids[newest.at])) then newest = rest end
  end
  if not newest then return nil end
  local id = newest.ids[newest.at]
  -- It may be in several of the lists.
  for _, rest in ipairs(rests) do
    if rest.ids[rest.at] == id then rest.at = rest.at + 1 end
  end
  return id
end

local function is_in(group, id)
  for _, name in ipairs(group) do
    for _, family in ipairs(a.families) do
      if redis.call('ZSCORE', P .. family .. name, id) then return true end
    end
  end
  return false
end

local function record_of(id)
  for _, group in ipairs(groups) do
    if group ~= shortest and not is_in(group, id) then return false end
  end
  local record = redis.pcall('HGETALL', a.record == 'grant' and grant_key(id) or job_key(id))
  -- Returns the error as text in its row, because an error of the script would hide all the other rows.
  return record.err or record
end

local found = {}
while #found < a.count do
  local id = take_newest()
  if not id then break end
  table.insert(found, { id, record_of(id) })
end
return found
