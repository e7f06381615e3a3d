-- Builds a pool's queue anew from the records of its tickets, where keys were lost or changed by others; hands units on.
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
-- ARGV[1] time_to_live: milliseconds for tickets that have lost theirs
-- Returns {tickets in the queue, records dropped because they cannot be read}, or an answer (see README.md): unregistered,
-- newer
-- Cost: 13 commands, and at most 8 for each ticket

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local time_to_live = ARGV[1]

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
--- include queue.lua
call('HDEL', usage, 'due')
local ends = text(look() + time_to_live)

call('DEL', queue, lines, turns)
local records, kept, dropped = call('HGETALL', tickets), 0, 0
for i = 1, #records, 2 do
  local member, units, rank = records[i], parts(records[i + 1])
  local project, domain = scope_of(member)
  if not units or not project then
    call('HDEL', tickets, member)
    dropped = dropped + 1
  else
    call('ZADD', queue, rank, member)
    call('ZADD', lines, 0, project .. ':' .. domain .. ' ' .. rank .. ' ' .. member)
    call('ZADD', leases, 'NX', ends, member)
    kept = kept + 1
  end
end
for i = 1, #records, 2 do
  local project, domain = scope_of(records[i])
  if project then open(project, domain) end
end
if kept > 0 then call('HSET', usage, 'tickets', kept) else call('HDEL', usage, 'tickets', 'closed') end
settle()
return { kept, dropped }
