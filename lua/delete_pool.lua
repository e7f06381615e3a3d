-- Deletes a pool.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- ARGV[1] mode: unused to refuse while units are in use, force to delete nevertheless
-- Returns {deleted | in_use, holders, units in use}, or an answer (see README.md): unregistered, newer
-- Cost: 4 commands; the memory is freed in the background

local call = redis.call
local pool, usage, grants = KEYS[1], KEYS[2], KEYS[3]
local mode = ARGV[1]

local state = call('HMGET', usage, 'schema', 'issued', 'issue_limit', 'quota')
if state[1] ~= '1' then return state[1] and 'newer ' .. state[1] or 'unregistered' end
local holders = math.max(call('SCARD', pool), call('HLEN', grants))
local units = math.max(state[4] - state[3] + state[2], 0)
if mode ~= 'force' and (holders > 0 or units > 0) then return { 'in_use', holders, units } end
call('UNLINK', pool, usage, grants)
return { 'deleted', holders, units }
