-- Runs plain commands that need no script of their own, in one atomic step, after the comparison of `meta`.
--
-- Flags: allow-oom. A transaction has no such flag: a full Redis refuses even its reads.
-- Arguments: lengths (how many words each command has); then, as further ARGV, the words of all commands.
-- Returns the answer of each command.

local answers, at = {}, 2
for i, length in ipairs(a.lengths) do
  answers[i] = redis.call(unpack(ARGV, at, at + length - 1))
  at = at + length
end
return answers
