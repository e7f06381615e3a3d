-- Corrects the counters of a pool by what they differ from its records, once; hands units on.
--
-- Claims and releases move counters and records alike, so a difference stays what it is while they go on.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- KEYS[4] leases: ZSET of members by the end of their leases
-- KEYS[5] tickets: HASH of the tickets' records
-- KEYS[6] queue: ZSET of the tickets by rank
-- KEYS[7] lines: ZSET of the tickets by domain, of the domains by project
-- KEYS[8] turns: ZSET of the projects whose turn it may be
-- KEYS[9] shares: ZSET of the projects' fair shares
-- ARGV[1] epoch: as read together with the counters and the records
-- ARGV[2] missing: units to add to what the pool counts as free, possibly negative
-- ARGV[3..] field, units: scopes whose counters differ, and what to add to each, possibly negative
-- Returns an answer (see README.md): repaired, changed, unregistered, newer
-- Cost: 10 commands, and at most 7 for each field; more while tickets wait or a lease has ended

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local epoch, missing = unpack(ARGV, 1, 2)

local schema, epoch_now = unpack(call('HMGET', usage, 'schema', 'epoch'))
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
if epoch_now ~= epoch then return 'changed' end
--- include queue.lua
look()
local next_epoch = math.max(now[1] * 1000000 + now[2], epoch + 1)
call('HSET', usage, 'epoch', string.format('%.0f', next_epoch))
call('HINCRBY', usage, 'issue_limit', missing)
for i = 3, #ARGV, 2 do
  if call('HINCRBY', usage, ARGV[i], ARGV[i + 1]) == 0 then call('HDEL', usage, ARGV[i]) end
  -- A scope that seemed to stand at a cap may have lost its turn.
  local project, domain = string.match(ARGV[i], '^d:([^:]*):(.*)$')
  if project then open(project, domain) else open_project(string.sub(ARGV[i], 3)) end
end
settle()
return 'repaired'
