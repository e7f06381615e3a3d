-- Registers, creates, pins or unpins the quota of a pool, and hands units on that a larger one adds.
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
-- ARGV[1] change: register (what a manager wants; a pin wins), create (only if there is none), pin (what an operator
-- wants, until unpinned), unpin (back to what was registered)
-- ARGV[2] wanted_quota: at least 1; empty to unpin
-- Returns {done | exists, quota in force, quota registered last, quota pinned or empty, quota registered before or empty}, or an
-- answer (see README.md): unregistered, newer
-- Cost: at most 4 commands; more while tickets wait

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local change, wanted_quota = unpack(ARGV)

local state = call('HMGET', usage, 'schema', 'quota', 'registered', 'pinned', 'tickets')
local schema, current, registered, pinned, queued = unpack(state)
if schema and schema ~= '1' then return 'newer ' .. schema end
local registered_before = registered or ''

if not schema then
  if change ~= 'register' and change ~= 'create' then return 'unregistered' end
  -- Fencing numbers start at the server's clock in microseconds, so that they still grow after the
  -- pool was deleted or its data lost. The text makes the hash longer than a listpack may be, and
  -- hash tables count faster, whatever the number of scopes (measured: 7.5 instead of 8.4 microseconds a grant).
  local time = call('TIME')
  local start = string.format('%.0f', time[1] * 1000000 + time[2])
  call('HSET', usage, 'schema', '1', 'quota', wanted_quota, 'registered', wanted_quota, 'issued', start,
    'issue_limit', string.format('%.0f', start + wanted_quota), 'epoch', start, 'made', start,
    'about', 'tokenpool: units issued so far, and how far issuing may go; their difference is free')
  return { 'done', wanted_quota, wanted_quota, '', registered_before }
end

if change == 'create' then return { 'exists', current, registered, pinned or '', registered_before } end
local wanted
if change == 'register' then
  registered, wanted = wanted_quota, pinned or wanted_quota
  call('HSET', usage, 'registered', registered)
elseif change == 'pin' then
  pinned, wanted = wanted_quota, wanted_quota
  call('HSET', usage, 'pinned', pinned)
else
  pinned, wanted = nil, registered
  call('HDEL', usage, 'pinned')
end
if wanted ~= current then
  call('HINCRBY', usage, 'issue_limit', string.format('%.0f', wanted - current))
  call('HSET', usage, 'quota', wanted)
  if queued then
    --- include queue.lua
    settle()
  end
end
return { 'done', wanted, registered, pinned or '', registered_before }
