-- Deletes a pool.
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
-- ARGV[1] mode: unused to refuse while units are in use or awaited, force to delete nevertheless
-- Returns {deleted | in_use, holders, units in use}, or an answer (see README.md): unregistered, newer
-- Cost: 4 commands; the memory is freed in the background

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares, journal = unpack(KEYS)
local mode = ARGV[1]

local state = call('HMGET', usage, 'schema', 'issued', 'issue_limit', 'quota', 'tickets')
if state[1] ~= '1' then return state[1] and 'newer ' .. state[1] or 'unregistered' end
local holders = math.max(call('SCARD', pool), call('HLEN', grants))
local units = math.max(state[4] - state[3] + state[2], 0)
if mode ~= 'force' and (holders > 0 or units > 0 or state[5]) then return { 'in_use', holders, units } end
call('UNLINK', pool, usage, grants, leases, tickets, queue, lines, turns, shares, journal)
return { 'deleted', holders, units }
