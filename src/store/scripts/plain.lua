-- Carries out plain commands that need no script of their own, all of one moment and behind the look at `meta`.
--
-- Flags: allow-oom, which a transaction would not be: a full Redis refuses even its reads.
-- Arguments: lengths (of how many words each command is); then, as further ARGV, the words of all commands.
-- Returns what each answers.

local answers, at = {}, 2
for i, length in ipairs(a.lengths) do
  answers[i] = redis.call(unpack(ARGV, at, at + length - 1))
  at = at + length
end
return answers
