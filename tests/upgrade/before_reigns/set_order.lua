-- Sets the order of a pool's queue and the weights of projects. Tickets keep the rank that they were given.
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
-- ARGV[1] new_order: fifo, priority, fair, or empty to leave it
-- ARGV[2..] project, weight: of each project to change
-- Returns {order, schema}, or an answer (see README.md): unregistered, newer
-- Cost: 2 commands, and 1 for each weight; for a new order also 3 for each project whose turn it may be

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local new_order = ARGV[1]

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
for i = 2, #ARGV, 2 do call('HSET', usage, 'w:' .. ARGV[i], ARGV[i + 1]) end
local now_order = call('HGET', usage, 'order') or 'fifo'
if new_order ~= '' and new_order ~= now_order then
  now_order = new_order
  call('HSET', usage, 'order', new_order)
  --- include queue.lua
  look()
  local projects = call('ZRANGE', turns, 0, -1)
  call('DEL', turns)
  for _, project in ipairs(projects) do open_project(project) end
  settle()
end
return { now_order, schema }
