-- Sets the counters of a pool to what its records say, if it did not change since they were read.
--
-- KEYS[1] usage: HASH of the pool's counters
-- ARGV[1] issued: as read
-- ARGV[2] issue_limit: as read
-- ARGV[3] quota: as read
-- ARGV[4] in_use: units that the records add up to
-- ARGV[5..] field, units: the scopes whose counters differ; 0 removes one
-- Returns an answer (see README.md): repaired, changed
-- Cost: 2 commands, and 1 for each field

local call = redis.call
local usage = KEYS[1]
local issued, issue_limit, quota, in_use = unpack(ARGV, 1, 4)

local state = call('HMGET', usage, 'issued', 'issue_limit', 'quota')
if state[1] ~= issued or state[2] ~= issue_limit or state[3] ~= quota then return 'changed' end
-- The fencing number moves on, so that of two repairs at once only one is applied.
call('HSET', usage, 'issued', string.format('%.0f', issued + 1),
  'issue_limit', string.format('%.0f', issued + 1 + quota - in_use))
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == '0' then call('HDEL', usage, ARGV[i]) else call('HSET', usage, ARGV[i], ARGV[i + 1]) end
end
return 'repaired'
