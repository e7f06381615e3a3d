-- Claims units for many tokens of one execution, each as allocate.lua would without a ticket, one after the other.
--
-- A script of its own because counting the scopes once for all claims makes the batch cheap and
-- one claim dear (measured: 9.6 instead of 7.5 microseconds).
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
-- ARGV[1] execution: its name
-- ARGV[2] holder: who claims, without white space
-- ARGV[3] project: field p:<project> of usage
-- ARGV[4] domain: field d:<project>:<domain> of usage
-- ARGV[5] project_cap: most units of the project, or -
-- ARGV[6] domain_cap: most units of the domain, or -
-- ARGV[7..] member, units, lease: of each claim; the lease in milliseconds, or - to hold until released
-- Returns an array with an answer (see README.md) per claim: granted, held, conflict, pool, project, domain, queue; or one
-- answer for all: unregistered, newer
-- Cost: 5 commands, 6 with leases, and 2 for each granted (3 with a lease) or 1 for each refused claim; more if one is the
-- next to end, while tickets wait or a lease has ended

local call, pcall = redis.call, redis.pcall
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local execution, holder, project, domain, project_cap, domain_cap = unpack(ARGV, 1, 6)

local counters = call('HMGET', usage, 'issued', 'issue_limit', 'quota', project, domain, 'schema', 'due', 'tickets')
if not counters[2] then
  local schema = counters[6]
  return schema and schema ~= '1' and 'newer ' .. schema or 'unregistered'
end
local time = call('TIME')
local millis, before = math.floor(time[1] * 1000 + time[2] / 1000), false
local adopt
if counters[8] or counters[7] and millis >= counters[7] + 0 then
  --- include queue.lua
  settle()
  counters = call('HMGET', usage, 'issued', 'issue_limit', 'quota', project, domain, 'schema', 'due')
  local of_project, of_domain = string.sub(project, 3), string.sub(domain, 3)
  before = call('EXISTS', turns) == 1 or first(of_project) or first(of_domain)
  adopt = unfile
end
local issued, limit, quota = counters[1] + 0, counters[2] + 0, counters[3] + 0
local in_project, in_domain, due = (counters[4] or 0) + 0, (counters[5] or 0) + 0, counters[7]
project_cap, domain_cap = tonumber(project_cap), tonumber(domain_cap)
-- Shows the key's type before anything is changed.
for i = 9, #ARGV, 3 do
  if ARGV[i] ~= '-' then
    call('ZCARD', leases)
    break
  end
end
local tail = ' ' .. time[1] .. ' ' .. holder .. ' ' .. execution

local answers, taken, soonest = {}, 0, nil
local last_lease, ends
for i = 7, #ARGV, 3 do
  local member, units, lease, answer = ARGV[i], ARGV[i + 1], ARGV[i + 2], nil
  local fence = string.format('%.0f', issued)
  local added, take
  if issued + units > limit then
    answer = 'pool ' .. fence .. ' ' .. counters[2] .. ' ' .. counters[3]
  elseif before then
    answer = 'queue ' .. fence .. ' ' .. counters[2] .. ' ' .. counters[3]
  elseif project_cap and in_project + units > project_cap then
    answer = 'project ' .. in_project .. ' ' .. project_cap
  elseif domain_cap and in_domain + units > domain_cap then
    answer = 'domain ' .. in_domain .. ' ' .. domain_cap
  else
    added = pcall('SADD', pool, member)
    if added ~= 0 and added ~= 1 then return added end
    local recorded = added == 1 and pcall('HSETNX', grants, member, units .. ' ' .. fence .. tail)
    if recorded == 1 then
      take, answer = true, 'granted ' .. fence
    elseif recorded and recorded ~= 0 then
      call('SREM', pool, member)
      return recorded
    end
  end
  local held = false
  if not take and (not answer or call('SISMEMBER', pool, member) == 1) then
    local record = call('HGET', grants, member)
    local held_units, held_fence, held_by
    if record then held_units, held_fence, held_by = string.match(record, '^(%d+) (%d+) %d+ %S+ (.*)$') end
    if not held_units then
      -- Another writer holds it without a record, so it was never counted: from now on it is.
      if adopt then adopt(member) end
      call('HSET', grants, member, units .. ' ' .. fence .. tail)
      take, answer = true, 'granted ' .. fence
    elseif held_units == units and (held_by == execution or held_by == '') then
      held, answer = true, 'held ' .. held_fence
    else
      if added == 1 then call('SREM', pool, member) end
      answer = 'conflict ' .. held_units .. ' ' .. held_by
    end
  end
  if take then
    issued, taken = issued + units, taken + units
    in_project, in_domain = in_project + units, in_domain + units
  end
  if held and lease == '-' and (due or soonest) then
    call('ZREM', leases, member)
  elseif lease ~= '-' and (take or held) then
    if lease ~= last_lease then last_lease, ends = lease, string.format('%.0f', millis + lease) end
    call('ZADD', leases, ends, member)
    if not soonest or ends + 0 < soonest + 0 then soonest = ends end
  end
  answers[#answers + 1] = answer
end

if soonest and (not due or soonest + 0 < due + 0) then call('HSET', usage, 'due', soonest) end
if taken > 0 then
  taken = string.format('%.0f', taken)
  call('HINCRBY', usage, project, taken)
  call('HINCRBY', usage, domain, taken)
  call('HINCRBY', usage, 'issued', taken)
end
return answers
