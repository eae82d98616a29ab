-- Reads a job with some of its targets, all of one moment.
--
-- Flags: allow-oom, which a transaction of two reads would not be: a full Redis refuses it.
-- Argument: job, after (a target's cluster and principal, a blank between them; '' for the first), count.
-- Returns the job's hash, a flat list of fields and values, which is empty where there is none; and, in the order of
-- their clusters and principals, [[target, fields], ..]: its own of the targets' hash, without its name.

local order = redis.call('ZRANGEBYLEX', order_key(a.job), a.after == '' and '-' or '(' .. a.after, '+', 'LIMIT', 0,
  a.count)
local targets = {}
for _, row in ipairs(order) do
  local target = string.gsub(row, ' ', '|')
  local known = {}
  local function take(field, value)
    if value then
      table.insert(known, field)
      table.insert(known, value)
    end
    return value
  end
  for _, field in ipairs({ 's', 'a', 'g', 'q', 'n', 'x' }) do
    take(field, redis.call('HGET', targets_key(a.job), field .. ':' .. target))
  end
  for name in string.gmatch(redis.call('HGET', targets_key(a.job), 'f:' .. target) or '', '[^,]+') do
    take('e:' .. name, redis.call('HGET', targets_key(a.job), 'e:' .. name .. ':' .. target))
  end
  table.insert(targets, { target, known })
end
return { redis.call('HGETALL', job_key(a.job)), targets }
