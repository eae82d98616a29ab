-- Looks whether a pass may give once more: what it was claimed for may have been taken back since (I5, I6).
--
-- Flags: allow-oom.
-- Argument: target, token.
-- Returns {'held', whether access has ended since the claim (1 or 0), now (ms), what is left of the lease (ms)}, or {'lost', 0, 0, 0} where the lease is
-- somebody else's or over.

local held = redis.call('HMGET', target_key(a.target), 'token', 'lease_end', 'lease', 'urgent')
if held[1] ~= a.token or not is_leased({ token = held[1], lease_end = held[2], lease = held[3] }) then
  return { 'lost', 0, 0, 0 }
end
return { 'held', held[4] and 1 or 0, now, number(held[2]) - now }
