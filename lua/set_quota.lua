-- Registers, creates, pins or unpins the quota of a pool.
--
-- KEYS[1] usage: HASH of the pool's counters
-- ARGV[1] change: register (what a manager wants; a pin wins), create (only if there is none), pin (what an operator
-- wants, until unpinned), unpin (back to what was registered)
-- ARGV[2] quota: at least 1; empty to unpin
-- Returns {done | exists, quota in force, quota registered last, quota pinned or empty, quota registered before or empty}, or an
-- answer (see README.md): unregistered, newer
-- Cost: at most 4 commands

local call = redis.call
local usage = KEYS[1]
local change, quota = unpack(ARGV)

local state = call('HMGET', usage, 'schema', 'quota', 'registered', 'pinned')
local schema, current, registered, pinned = unpack(state)
if schema and schema ~= '1' then return 'newer ' .. schema end
local before = registered or ''

if not schema then
  if change ~= 'register' and change ~= 'create' then return 'unregistered' end
  -- Fencing numbers start at the server's clock in microseconds, so that they still grow after the
  -- pool was deleted or its data lost. The text makes the hash longer than a listpack may be, and
  -- hash tables count faster, whatever the number of scopes (measured: 7.5 instead of 8.4 microseconds a grant).
  local now = call('TIME')
  local start = string.format('%.0f', now[1] * 1000000 + now[2])
  call('HSET', usage, 'schema', '1', 'quota', quota, 'registered', quota, 'issued', start,
    'issue_limit', string.format('%.0f', start + quota), 'epoch', start,
    'about', 'tokenpool: units issued so far, and how far issuing may go; their difference is free')
  return { 'done', quota, quota, '', before }
end

if change == 'create' then return { 'exists', current, registered, pinned or '', before } end
local wanted
if change == 'register' then
  registered, wanted = quota, pinned or quota
  call('HSET', usage, 'registered', registered)
elseif change == 'pin' then
  pinned, wanted = quota, quota
  call('HSET', usage, 'pinned', pinned)
else
  pinned, wanted = nil, registered
  call('HDEL', usage, 'pinned')
end
if wanted ~= current then
  call('HINCRBY', usage, 'issue_limit', string.format('%.0f', wanted - current))
  call('HSET', usage, 'quota', wanted)
end
return { 'done', wanted, registered, pinned or '', before }
