-- Registers, restores, creates, pins or unpins the quota of a pool, and hands units on that a larger one adds.
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
-- ARGV[1] change: register (what a manager wants; a pin wins), restore (what a manager wants of a pool that was lost, if it is
-- still gone), create (only if there is none), pin (what an operator wants, until unpinned), unpin (back to what was registered)
-- ARGV[2] wanted_quota: at least 1; empty to unpin
-- ARGV[3] period: milliseconds that the pool learns after data were lost, or 0; if a manager registered more, that counts to
-- restore
-- ARGV[4] learns_first: whether a pool learns that this makes: 1 or 0
-- Returns {done | exists, quota in force, quota registered last, quota pinned or empty, quota registered before or empty}, or an
-- answer (see README.md): unregistered, newer
-- Cost: at most 5 commands; more while tickets wait, and in proportion to the grants where the counters alone were lost

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local change, wanted_quota, period, learns_first = unpack(ARGV)

local state = call('HMGET', usage, 'schema', 'quota', 'registered', 'pinned', 'tickets', 'learns_for')
local schema, current, registered, pinned, queued, period_before = unpack(state)
if schema and schema ~= '1' then return 'newer ' .. schema end
local registered_before = registered or ''

if not schema then
  if change == 'pin' or change == 'unpin' then return 'unregistered' end
  -- Fencing numbers start at the server's clock in microseconds, so that they still grow after the
  -- pool was deleted or its data lost. The text makes the hash longer than a listpack may be, and
  -- hash tables count faster, whatever the number of scopes (measured: 7.5 instead of 8.4 microseconds a grant).
  local time = call('TIME')
  local start = time[1] * 1000000 + time[2]
  local fields = { 'schema', '1', 'quota', wanted_quota, 'registered', wanted_quota,
    'about', 'tokenpool: units issued so far, and how far issuing may go; their difference is free' }
  local function set(field, number)
    fields[#fields + 1] = field
    fields[#fields + 1] = string.format('%.0f', number)
  end
  -- Where the counters alone were lost, what is recorded is counted.
  local in_use, first_issued, issued, records, cursor = 0, start, start, {}, '0'
  repeat
    local page = call('HSCAN', grants, cursor, 'COUNT', 1000)
    cursor = page[1]
    for i = 1, #page[2], 2 do records[page[2][i]] = page[2][i + 1] end
  until cursor == '0'
  local scopes = {}
  for member, record in pairs(records) do
    local units, fence = string.match(record, '^([1-9]%d*) (%d+) ')
    local project, domain = string.match(member, '^ex:([^:]*):([^:]*):')
    if units then
      in_use, first_issued, issued = in_use + units, math.min(first_issued, fence), math.max(issued, fence + units)
      for _, field in ipairs(project and { 'p:' .. project, 'd:' .. project .. ':' .. domain } or {}) do
        scopes[field] = (scopes[field] or 0) + units
      end
    end
  end
  local waiting = call('ZCARD', queue)
  if waiting > 0 then
    set('tickets', waiting)
    set('closed', 1)
  end
  set('issued', issued)
  set('issue_limit', issued + wanted_quota - in_use)
  set('epoch', start)
  set('made', first_issued)
  if period ~= '0' then set('learns_for', period) end
  local due = (in_use > 0 or waiting > 0) and 0
  if period ~= '0' and learns_first == '1' then
    local ends = math.floor(start / 1000) + period
    set('learns_until', ends)
    due = due or ends
  end
  if due then set('due', due) end
  call('HSET', usage, unpack(fields))
  for field, units in pairs(scopes) do call('HSET', usage, field, string.format('%.0f', units)) end
  return { 'done', wanted_quota, wanted_quota, '', registered_before }
end

if change == 'create' then return { 'exists', current, registered, pinned or '', registered_before } end
if change == 'restore' then
  -- Somebody made it who could not know that there was one before: it learns for the rest of the time since.
  local time, known = call('TIME'), call('HMGET', usage, 'made', 'learned', 'learns_until', 'due')
  local ends = math.floor((known[1] or 0) / 1000) + math.max(period + 0, (period_before or 0) + 0)
  if not known[2] and ends > math.max(time[1] * 1000 + time[2] / 1000, (known[3] or 0) + 0) then
    call('HSET', usage, 'learns_until', string.format('%.0f', ends))
    if not known[4] or ends < known[4] + 0 then call('HSET', usage, 'due', string.format('%.0f', ends)) end
  end
  return { 'done', current, registered, pinned or '', registered_before }
end
local wanted
if change == 'register' then
  registered, wanted = wanted_quota, pinned or wanted_quota
  call('HSET', usage, 'registered', registered)
  if period ~= (period_before or '0') then
    if period == '0' then call('HDEL', usage, 'learns_for') else call('HSET', usage, 'learns_for', period) end
  end
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
