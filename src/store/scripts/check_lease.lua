-- Reads what a pass has to know before each PUT: whether its lease holds, and whether the desired state has changed
-- since the claim (I5, I6).
--
-- Flags: allow-oom.
-- Argument: target, token.
-- Returns {'held', ended, now (ms), what is left of the lease (ms)}, or {'lost', 0, 0, 0} if the lease is over or another
-- worker has it. `ended`: 1 if access has ended on the target since the claim, else 0.

local held = redis.call('HMGET', target_key(a.target), 'token', 'lease_end', 'lease', 'urgent')
if held[1] ~= a.token or not is_leased({ token = held[1], lease_end = held[2], lease = held[3] }) then
  return { 'lost', 0, 0, 0 }
end
return { 'held', held[4] and 1 or 0, now, number(held[2]) - now }
