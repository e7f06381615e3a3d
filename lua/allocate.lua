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
-- The first four are enough while nobody waits, nothing is due and the pool does not learn; where they are not the answer is
-- keys.
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
-- ARGV[13] returning: number of the grant that the token had and that the server may have forgotten, or -
-- Returns an answer (see README.md): granted, held, conflict, pool, learning, project, domain, queue, waiting, never,
-- keys, unregistered, newer
-- Cost: 5 commands granted, 6 with a lease, 7 if it is the next to end, 2 refused by the quota, 3 where leases are held,
-- whatever the number of holders, scopes and tickets; more while tickets wait, the pool learns or a lease has ended,
-- logarithmic in their number

local call, pcall, format = redis.call, redis.pcall, string.format
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local member, units, execution, holder, project, domain, project_cap, domain_cap, lease, ticket, priority, channel, returning = unpack(ARGV)

-- Strings from HMGET and ARGV go back into commands, records and answers as they are: turning Lua numbers into strings is
-- what costs here.
local counters = call('HMGET', usage, 'issued', 'issue_limit', 'quota', 'due', 'tickets', 'learns_until', project, domain)
local fence, limit, quota_now, due, queued, learns_until, in_project, in_domain = unpack(counters)
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
  elseif not queued and not learns_until and returning == '-' then
    in_project, in_domain = in_project or '0', in_domain or '0'
    if project_cap ~= '-' and in_project + units > project_cap + 0 then
      refusal = 'project ' .. in_project .. ' ' .. project_cap
    elseif domain_cap ~= '-' and in_domain + units > domain_cap + 0 then
      refusal = 'domain ' .. in_domain .. ' ' .. domain_cap
    else
      local issued = format('%d', fence + units)
      in_project, in_domain = format('%d', in_project + units), format('%d', in_domain + units)
      added = pcall('SADD', pool, member)
      if added == 1 then
        time = time or call('TIME')
        local recorded = pcall('HSETNX', grants, member,
          units .. ' ' .. fence .. ' ' .. time[1] .. ' ' .. holder .. ' ' .. execution)
        if recorded == 1 then
          local leased, ends = 1, nil
          if lease ~= '-' then
            ends = format('%d', time[1] * 1000 + time[2] / 1000 + lease) -- milliseconds
            leased = pcall('ZADD', leases, ends, member)
          end
          if leased == 1 or leased == 0 then
            if ends and (not counters[4] or ends < counters[4]) then call('HSET', usage, 'due', ends) end
            call('HSET', usage, 'issued', issued, project, in_project, domain, in_domain)
            return 'granted ' .. fence
          end
          recorded = leased
          call('HDEL', grants, member)
        end
        if recorded ~= 0 then
          call('SREM', pool, member)
          return recorded
        end
      elseif added ~= 0 then
        return added
      end
    end
  end
  if refusal and ticket == '-' and call('SISMEMBER', pool, member) == 0 then return refusal end
end

-- Held, waiting, coming back, something is due, the pool learns, or tickets stand before it.
local settles = due or queued or learns_until
if settles and not tickets then return 'keys' end
--- include queue.lua
local millis = settles and settle() or look()
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
if not tickets then return 'keys' end

local function granted()
  if returning ~= '-' then exceed(returning) end
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

local function of_learning()
  if learning then return of_pool('learning ' .. text(learning - millis) .. ' ') end
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
    .. (cap_full() or issued + units > issue_limit and of_pool('pool ') or of_learning() or of_pool('queue '))
end

-- It holds already what the server has forgotten, so nobody stands before it.
if learning and issued + units <= issue_limit and is_forgotten(returning) and not cap_full() then
  unfile(member)
  return granted()
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
local refusal = issued + units > issue_limit and of_pool('pool ') or of_learning() or before and of_pool('queue ')
  or cap_full()
if not refusal then return granted() end
if ticket == '-' then return refusal end
lasts(member, millis + ticket)
enqueue(member, units, project_name, domain_name, project_cap, domain_cap, priority, channel, holder, execution)
return turn()
