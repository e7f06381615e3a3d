-- Takes away what a member holds, or its ticket, on behalf of an operator; writes down who did so and why; hands units on.
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
-- KEYS[10] journal: STREAM of what operators took away
-- ARGV[1] member: as it stands in the pool
-- ARGV[2] operator: who does it
-- ARGV[3] reason: why
-- Returns an answer (see README.md): released, withdrawn, unheld, unregistered, newer
-- Cost: 18 commands, 20 for the last of its scopes; more while tickets wait or a lease has ended, logarithmic in their number

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares, journal = unpack(KEYS)
local member, operator, reason = unpack(ARGV)

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
local record, ticket = call('HGET', grants, member), call('HGET', tickets, member)
local units = record and string.match(record, '^(%d+) ')
local answer
--- include queue.lua
look()
if units then
  free(member, units)
  answer = 'released ' .. units
elseif ticket then
  withdraw(member, ticket)
  answer = 'withdrawn'
elseif call('SREM', pool, member) == 1 then
  call('HDEL', grants, member)
  answer = 'released 0'
else
  return 'unheld'
end
call('XADD', journal, 'MAXLEN', '~', 1000, '*', 'member', member, 'was', record or ticket or '', 'operator', operator,
  'reason', reason)
settle()
return answer
