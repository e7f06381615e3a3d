-- Gives back tokens and claims others, each of whatever execution, for callers who do not wait: release.lua and allocate.lua,
-- many times at once. Releases come first, so that what they free is granted here.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- KEYS[4] leases: ZSET of members by the end of their leases
-- ARGV[1] releases: how many there are
-- ARGV[2..] execution, project, domain, number, member: of each release, as release.lua takes them; behind them member, units,
-- execution, holder, project, domain, project_cap, domain_cap and lease of each claim, as allocate.lua takes them
-- Returns an array with an answer (see README.md) per release and claim: released, unheld, granted, held, conflict, pool,
-- project, domain, keys; or one answer for all: keys, apart, unregistered, newer
-- Cost: 2 commands; 2 more if units are given back and 3 if units are granted, and then 1 for the counters (2 if they were the
-- last of a scope); 1 if tokens are only held; 1 for each release of what has no record and for each claim that is refused; at most
-- 5 more where leases are held or asked for; whatever the number of holders and scopes

local call, pcall, format = redis.call, redis.pcall, string.format
local pool, usage, grants, leases = unpack(KEYS)
local releases = ARGV[1]

-- Places in ARGV: of the first claim, and from one operation to the next.
local CLAIMS, RELEASE, CLAIM = 2 + releases * 5, 5, 9
local RECORD = '^(%d+) (%d+) %d+ %S+ (.*)$'

-- What is asked of usage: the pool's own fields, and each scope's once.
local fields, scopes = { 'schema', 'issued', 'issue_limit', 'quota', 'due', 'tickets', 'learns_until' }, 8
local in_use, members = {}, {}
local function scope(field)
  if not in_use[field] then
    in_use[field] = 0
    fields[#fields + 1] = field
  end
end
for i = 2, CLAIMS - 1, RELEASE do
  scope(ARGV[i + 1])
  scope(ARGV[i + 2])
  members[#members + 1] = ARGV[i + 4]
end
local wants_lease
for i = CLAIMS, #ARGV, CLAIM do
  members[#members + 1] = ARGV[i]
  scope(ARGV[i + 4])
  scope(ARGV[i + 5])
  wants_lease = wants_lease or ARGV[i + 8] ~= '-'
end

local counters = call('HMGET', usage, unpack(fields))
local schema, issued, limit, quota, due, tickets, learns_until = unpack(counters, 1, 7)
if schema ~= '1' or not limit then return schema and schema ~= '1' and 'newer ' .. schema or 'unregistered' end
if tickets or learns_until then return 'apart' end
local time
if due then
  time = call('TIME')
  if time[1] * 1000 + time[2] / 1000 >= due + 0 then return 'keys' end
end
issued, limit = issued + 0, limit + 0
-- One that is no number concerns its own scope alone.
for i = scopes, #fields do in_use[fields[i]] = tonumber(counters[i] or 0) or 'broken' end
local found, records = call('HMGET', grants, unpack(members)), {}
for i = 1, #members do records[members[i]] = found[i] end
-- Fails here, before anything is changed, if it is something else.
if due or wants_lease then call('ZCARD', leases) end

local answers, freed, is_freed = {}, {}, {}
for i = 2, CLAIMS - 1, RELEASE do
  local execution, project, domain, number, member = unpack(ARGV, i, i + 4)
  local record, answer = records[member], 'unheld'
  if record then
    local units, fence, held_by = string.match(record, RECORD)
    if not units or in_use[project] == 'broken' or in_use[domain] == 'broken' then
      answer = 'keys'
    elseif (held_by == execution or held_by == '') and (number == '-' or number == fence) then
      answer = 'released ' .. units
      freed[#freed + 1], is_freed[member], records[member] = member, true, false
      limit, in_use[project], in_use[domain] = limit + units, in_use[project] - units, in_use[domain] - units
    end
  elseif number == '-' and not is_freed[member] then
    local removed = pcall('SREM', pool, member)
    if removed ~= 0 and removed ~= 1 then return 'keys' end
    if removed == 1 then answer = 'released 0' end
  end
  answers[#answers + 1] = answer
end
if #freed > 0 then
  if type(pcall('SREM', pool, unpack(freed))) ~= 'number' then return 'keys' end
  call('HDEL', grants, unpack(freed))
  if due then call('ZREM', leases, unpack(freed)) end
end

local added, recorded, ends, soonest, asked = {}, {}, {}, due, #answers
for i = CLAIMS, #ARGV, CLAIM do
  local member, units, execution, holder, project, domain, project_cap, domain_cap, lease = unpack(ARGV, i, i + 8)
  local record, answer, takes = records[member], nil, false
  if record then
    local held_units, held_fence, held_by = string.match(record, RECORD)
    if not held_units then
      answer = 'keys'
    elseif held_units ~= units or held_by ~= execution and held_by ~= '' then
      answer = 'conflict ' .. held_units .. ' ' .. held_by
    else
      answer, takes = 'held ' .. held_fence, true
    end
  else
    local in_project, in_domain = in_use[project], in_use[domain]
    if in_project == 'broken' or in_domain == 'broken' then
      answer = 'keys'
    elseif issued + units > limit then
      answer = format('pool %d %d %s', issued, limit, quota)
    elseif project_cap ~= '-' and in_project + units > project_cap + 0 then
      answer = format('project %d %s', in_project, project_cap)
    elseif domain_cap ~= '-' and in_domain + units > domain_cap + 0 then
      answer = format('domain %d %s', in_domain, domain_cap)
    end
    if answer then
      -- Another writer holds it, so it is to be adopted.
      if call('SISMEMBER', pool, member) == 1 then answer = 'keys' end
    else
      time = time or call('TIME')
      local fence = format('%d', issued)
      record = units .. ' ' .. fence .. ' ' .. time[1] .. ' ' .. holder .. ' ' .. execution
      answer, takes, records[member] = 'granted ' .. fence, true, record
      recorded[#recorded + 1], recorded[#recorded + 2] = member, record
      issued, in_use[project], in_use[domain] = issued + units, in_project + units, in_domain + units
    end
  end
  if takes then
    added[#added + 1], ends[member] = member, false
    if lease ~= '-' then
      time = time or call('TIME')
      local last = format('%d', time[1] * 1000 + time[2] / 1000 + lease) -- milliseconds
      ends[member] = last
      if not soonest or last < soonest then soonest = last end
    end
  end
  answers[#answers + 1] = answer
end

if #added > 0 then
  local result = pcall('SADD', pool, unpack(added))
  if type(result) ~= 'number' then
    -- No memory, or no primary: by itself each claim is told. Neither is found out after something was written.
    if #freed > 0 then return result end
    for i = asked + 1, #answers do answers[i] = 'keys' end
    return answers
  end
  if #recorded > 0 then call('HSET', grants, unpack(recorded)) end
end
if due or wants_lease then
  local lasting, endless = {}, {}
  for member, last in pairs(ends) do
    if last then
      lasting[#lasting + 1], lasting[#lasting + 2] = last, member
    else
      endless[#endless + 1] = member
    end
  end
  if due and #endless > 0 then call('ZREM', leases, unpack(endless)) end
  if #lasting > 0 then call('ZADD', leases, unpack(lasting)) end
end

if #freed > 0 or #recorded > 0 or soonest ~= due then
  local now, gone = { 'issued', format('%d', issued), 'issue_limit', format('%d', limit) }, {}
  for i = scopes, #fields do
    local field = fields[i]
    local units = in_use[field]
    if units == 0 then
      if counters[i] then gone[#gone + 1] = field end
    elseif units ~= 'broken' then
      now[#now + 1], now[#now + 2] = field, format('%d', units)
    end
  end
  if soonest ~= due then now[#now + 1], now[#now + 2] = 'due', soonest end
  call('HSET', usage, unpack(now))
  if #gone > 0 then call('HDEL', usage, unpack(gone)) end
end
return answers
