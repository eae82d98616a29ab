-- Lists grants or jobs, newest first: those that are in all of some lists.
--
-- Flags: allow-oom; reading must not wait for memory.
-- Argument: record ('grant' or 'job'), families (prefixes of lists, such as 'grants:live:'; the script lists their
-- union), names (of lists), before (an id; '' for the newest), count.
-- Returns [[id, record], ..] of the newest `count` of the shortest list, or fewer if there are no more. Each record is
-- a flat list of fields and values, or nil if the id is not in all of the lists, or Redis's error as text if the key
-- does not hold a hash.

local shortest, length = nil, nil
for _, name in ipairs(a.names) do
  local rows = 0
  for _, family in ipairs(a.families) do rows = rows + redis.call('ZCARD', P .. family .. name) end
  if not length or rows < length then shortest, length = name, rows end
end

local from = a.before == '' and '+' or '(' .. a.before
local rests = {}
for _, family in ipairs(a.families) do
  local ids = redis.call('ZREVRANGEBYLEX', P .. family .. shortest, from, '-', 'LIMIT', 0, a.count)
  table.insert(rests, { ids = ids, at = 1 })
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
  newest.at = newest.at + 1
  return newest.ids[newest.at - 1]
end

local function is_in(name, id)
  for _, family in ipairs(a.families) do
    if redis.call('ZSCORE', P .. family .. name, id) then return true end
  end
  return false
end

local function record_of(id)
  for _, name in ipairs(a.names) do
    if name ~= shortest and not is_in(name, id) then return false end
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
