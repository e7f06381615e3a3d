-- Admits new claims again before a pool has learned who holds its units, and hands units on.
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
-- Returns {done, milliseconds that were left or 0}, or an answer (see README.md): unregistered, newer
-- Cost: 6 commands; more while tickets wait or a lease has ended

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
--- include queue.lua
local millis = look()
if not learning then return { 'done', '0' } end
local left = text(learning - millis)
call('HDEL', usage, 'learns_until')
-- Holders that come back begin it no more.
call('HSET', usage, 'learned', '1')
learning = nil
settle(millis)
return { 'done', left }
