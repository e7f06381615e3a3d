-- Tells which grants tokens hold, and writes one of their records again as it is: a WAIT behind this on the same connection
-- covers them all, because it covers what its own connection wrote, and nothing else (Redis 7.2 and later, Valkey).
--
-- KEYS[1] grants: HASH of the grants' records
-- ARGV[1..] member: of each
-- Returns an array with an answer (see README.md) per member: held, unheld
-- Cost: 2 commands, of which one is in proportion to the members

local call, match = redis.call, string.match
local grants = KEYS[1]

local records, answers, written = call('HMGET', grants, unpack(ARGV)), {}, false
for i = 1, #ARGV do
  local record = records[i]
  local fence = record and match(record, '^%d+ (%d+) ')
  answers[i] = fence and 'held ' .. fence or 'unheld'
  if record and not written then
    call('HSET', grants, ARGV[i], record)
    written = true
  end
end
return answers
