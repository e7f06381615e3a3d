-- Corrects the counters of a pool by what they differ from its records, once.
--
-- Claims and releases move counters and records alike, so a difference stays what it is while they go on.
--
-- KEYS[1] usage: HASH of the pool's counters
-- ARGV[1] epoch: as read together with the counters and the records
-- ARGV[2] free: units to add to what the pool counts as free, possibly negative
-- ARGV[3..] field, units: scopes whose counters differ, and what to add to each, possibly negative
-- Returns an answer (see README.md): repaired, changed
-- Cost: 4 commands, and at most 2 for each field

local call = redis.call
local usage = KEYS[1]
local epoch, free = unpack(ARGV, 1, 2)

if call('HGET', usage, 'epoch') ~= epoch then return 'changed' end
local now = call('TIME')
local next_epoch = math.max(now[1] * 1000000 + now[2], epoch + 1)
call('HSET', usage, 'epoch', string.format('%.0f', next_epoch))
call('HINCRBY', usage, 'issue_limit', free)
for i = 3, #ARGV, 2 do
  if call('HINCRBY', usage, ARGV[i], ARGV[i + 1]) == 0 then call('HDEL', usage, ARGV[i]) end
end
return 'repaired'
