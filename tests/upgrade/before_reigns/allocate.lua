-- Claims units for one token: decides, counts and records in one step. A claim that waits gets a ticket, or keeps the one
-- that it has.
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
-- ARGV[1] member: ex:<project>:<domain>:<execution>-<token>
-- ARGV[2] units: at least 1
-- ARGV[3] execution: its name
-- ARGV[4] holder: who claims, without white space
-- ARGV[5] project: field p:<project> of usage
-- ARGV[6] domain: field d:<project>:<domain> of usage
-- ARGV[7] project_cap: most units of the project, or -
-- ARGV[8] domain_cap: most units of the domain, or -
-- ARGV[9] lease: milliseconds, or - to hold until released
-- ARGV[10] ticket: milliseconds that a ticket lasts unless it is renewed, or - not to wait
-- ARGV[11] priority: 0 to 9, of a ticket in a pool of that order
-- ARGV[12] channel: where to tell that a ticket's turn came, or -
-- Returns an answer (see README.md): granted, held, conflict, pool, project, domain, queue, waiting, never, unregistered,
-- newer
-- Cost: 7 commands granted, 8 with a lease, 9 if it is the next to end, 2 refused by the quota, 3 where leases are held,
-- whatever the number of holders, scopes and tickets; more while tickets wait or a lease has ended, logarithmic in their
-- number

local call, pcall = redis.call, redis.pcall
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local member, units, execution, holder, project, domain, project_cap, domain_cap, lease, ticket, priority, channel = unpack(ARGV)

-- Strings from HMGET and ARGV go back into commands, records and answers as they are: turning Lua numbers into strings is
-- what costs here.
local counters = call('HMGET', usage, 'issued', 'issue_limit', 'quota', 'due', 'tickets')
local fence, limit, quota_now, due, queued = unpack(counters)
if not limit then
  local schema = call('HGET', usage, 'schema')
  return schema and schema ~= '1' and 'newer ' .. schema or 'unregistered'
end

local time, added
-- What waits hands units on in any case, and looks at the clock then.
if due and (ticket == '-' or not queued) then
  time = call('TIME')
  due = time[1] * 1000 + time[2] / 1000 >= due + 0
end
if not due then
  local refusal
  if fence + units > limit + 0 then
    refusal = 'pool ' .. fence .. ' ' .. limit .. ' ' .. quota_now
  elseif not queued then
    local in_project = call('HINCRBY', usage, project, units)
    local in_domain = call('HINCRBY', usage, domain, units)
    local failure
    if project_cap ~= '-' and in_project > project_cap + 0 then
      refusal = 'project ' .. (in_project - units) .. ' ' .. project_cap
    elseif domain_cap ~= '-' and in_domain > domain_cap + 0 then
      refusal = 'domain ' .. (in_domain - units) .. ' ' .. domain_cap
    else
      added = pcall('SADD', pool, member)
      if added == 1 then
        time = time or call('TIME')
        local recorded = pcall('HSETNX', grants, member,
          units .. ' ' .. fence .. ' ' .. time[1] .. ' ' .. holder .. ' ' .. execution)
        if recorded == 1 then
          local leased, ends = 1, nil
          if lease ~= '-' then
            ends = string.format('%d', time[1] * 1000 + time[2] / 1000 + lease) -- whole milliseconds
            leased = pcall('ZADD', leases, ends, member)
          end
          if leased == 1 or leased == 0 then
            if ends and (not counters[4] or ends < counters[4]) then call('HSET', usage, 'due', ends) end
            call('HINCRBY', usage, 'issued', units)
            return 'granted ' .. fence
          end
          recorded = leased
          call('HDEL', grants, member)
        end
        if recorded ~= 0 then
          call('SREM', pool, member)
          failure = recorded
        end
      elseif added ~= 0 then
        failure = added
      end
    end
    -- Not granted after all: count it out again, without leaving zeros.
    for field, count in pairs({ [project] = in_project, [domain] = in_domain }) do
      if count == units + 0 then call('HDEL', usage, field) else call('HINCRBY', usage, field, '-' .. units) end
    end
    if failure then return failure end
  end
  if refusal and ticket == '-' and call('SISMEMBER', pool, member) == 0 then return refusal end
end

-- Held, waiting, something is due, or tickets stand before it.
--- include queue.lua
local millis = (due or queued) and settle() or look()
local project_name, domain_name = scope_of(member)

-- Gives the member the claim's own lease, or none.
local function take()
  if lease ~= '-' then
    lasts(member, millis + lease)
  elseif ticket ~= '-' or counters[4] then
    call('ZREM', leases, member)
  end
end

local record = call('HGET', grants, member)
local held_units, held_fence, held_by
if record then held_units, held_fence, held_by = string.match(record, '^(%d+) (%d+) %d+ %S+ (.*)$') end
if held_units then
  if held_units ~= units or held_by ~= execution and held_by ~= '' then
    if added == 1 then call('SREM', pool, member) end
    return 'conflict ' .. held_units .. ' ' .. held_by
  end
  -- Another writer may have removed it.
  if not added then call('SADD', pool, member) end
  take()
  return 'held ' .. held_fence
end

local function granted()
  take()
  return 'granted ' .. grant(member, units, holder, execution, project_name, domain_name)
end
-- Another writer holds it without a record, so it was never counted: from now on it is.
if added == 1 or call('SISMEMBER', pool, member) == 1 then
  unfile(member)
  return granted()
end

local function of_pool(word) return word .. text(issued) .. ' ' .. text(issue_limit) .. ' ' .. text(quota) end
-- The cap that stops the claim now, the wider one first.
local function cap_full()
  for _, limit in ipairs({ { 'project ', project, project_cap }, { 'domain ', domain, domain_cap } }) do
    local in_use = call('HGET', usage, limit[2]) or '0'
    if limit[3] ~= '-' and in_use + units > limit[3] + 0 then return limit[1] .. in_use .. ' ' .. limit[3] end
  end
end

-- What became of the claim's ticket.
local function turn()
  if not hand_on(millis) then call('HSET', usage, 'due', '0') end
  local handed = call('HGET', grants, member)
  if handed then
    take()
    return 'granted ' .. string.match(handed, '^%d+ (%d+) ')
  end
  local due_next = call('HGET', usage, 'due')
  local wait = due_next and text(math.max(due_next - millis, 0)) or '-'
  return 'waiting ' .. call('ZRANK', queue, member) + 1 .. ' ' .. text(issued) .. ' ' .. wait .. ' '
    .. (cap_full() or of_pool(issued + units > issue_limit and 'pool ' or 'queue '))
end

local filed = call('HGET', tickets, member)
local filed_units, rank, since, filed_by, _
if filed then
  if ticket == '-' then return of_pool('queue ') end
  filed_units, rank, _, _, since, _, _, filed_by = parts(filed)
  if filed_units ~= units or filed_by ~= execution then return 'conflict ' .. filed_units .. ' ' .. filed_by end
end
if ticket ~= '-' then
  if units + 0 > quota then return 'never pool ' .. text(quota) end
  if project_cap ~= '-' and units + 0 > project_cap + 0 then return 'never project ' .. project_cap end
  if domain_cap ~= '-' and units + 0 > domain_cap + 0 then return 'never domain ' .. domain_cap end
end
if filed then
  lasts(member, millis + ticket)
  refile(member, units, rank, project_name, domain_name, project_cap, domain_cap, since, priority, channel, holder, execution)
  return turn()
end

local before = call('EXISTS', turns) == 1 or first(project_name) or first(project_name .. ':' .. domain_name)
local refusal = issued + units > issue_limit and of_pool('pool ') or before and of_pool('queue ') or cap_full()
if not refusal then return granted() end
if ticket == '-' then return refusal end
lasts(member, millis + ticket)
enqueue(member, units, project_name, domain_name, project_cap, domain_cap, priority, channel, holder, execution)
return turn()
