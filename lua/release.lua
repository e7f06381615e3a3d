-- Gives back the units of one or many tokens of one domain of a project, or withdraws their tickets, and hands units on.
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
-- The first four are enough while nobody waits and nothing is due; where they are not the answer is keys.
-- ARGV[1] execution: name of the one that may release
-- ARGV[2] project: field p:<project> of usage
-- ARGV[3] domain: field d:<project>:<domain> of usage
-- ARGV[4] number: the fencing number of the grant to give back, or - for any grant or ticket
-- ARGV[5..] member: ex:<project>:<domain>:<execution>-<token>
-- Returns an array with an answer (see README.md) per member: released, withdrawn, unheld; or one answer for all:
-- keys, unregistered, newer
-- Cost: 2 commands (3 where leases are held), and 3 for each member (4 where leases are held), whatever the number of
-- holders and scopes; at most 2 more for the last units of a scope; more while tickets wait or a lease has ended,
-- logarithmic in their number

local call, pcall, format = redis.call, redis.pcall, string.format
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local execution, project, domain, number = unpack(ARGV, 1, 4)

local counters = call('HMGET', usage, 'schema', project, domain, 'due', 'tickets', 'issue_limit')
if counters[1] ~= '1' then return counters[1] and 'newer ' .. counters[1] or 'unregistered' end
local leased, queued = counters[4], counters[5]
local due = leased
if leased and not queued then
  local time = call('TIME')
  due = time[1] * 1000 + time[2] / 1000 >= leased + 0
end
if (due or queued) and not tickets then return 'keys' end
-- Fails here, before anything is changed, if one is no number.
local in_project, in_domain, limit = (counters[2] or 0) + 0, (counters[3] or 0) + 0, (counters[6] or 0) + 0

local answers, returned = {}, 0
for i = 5, #ARGV do
  local member, answer = ARGV[i], 'unheld'
  local record = call('HGET', grants, member)
  local units, fence, held_by
  if record then units, fence, held_by = string.match(record, '^(%d+) (%d+) %d+ %S+ (.*)$') end
  if (not units or held_by == execution or held_by == '') and (number == '-' or number == fence) then
    local removed = pcall('SREM', pool, member)
    if removed ~= 0 and removed ~= 1 then return removed end
    if record then
      call('HDEL', grants, member)
      if leased then call('ZREM', leases, member) end
    end
    if units then
      returned = returned + units
      answer = 'released ' .. units
    elseif removed == 1 then
      answer = 'released 0'
    end
  end
  answers[#answers + 1] = answer
end

if returned ~= 0 then
  limit, in_project, in_domain = format('%d', limit + returned), in_project - returned, in_domain - returned
  if in_project ~= 0 and in_domain ~= 0 then
    call('HSET', usage, 'issue_limit', limit, project, format('%d', in_project), domain, format('%d', in_domain))
  else
    call('HSET', usage, 'issue_limit', limit)
    if in_project == 0 then call('HDEL', usage, project) else call('HSET', usage, project, format('%d', in_project)) end
    if in_domain == 0 then call('HDEL', usage, domain) else call('HSET', usage, domain, format('%d', in_domain)) end
  end
end

if due or queued then
  --- include queue.lua
  local millis = look()
  for i, answer in ipairs(answers) do
    local member = ARGV[i + 4]
    local ticket = answer == 'unheld' and number == '-' and call('HGET', tickets, member)
    if ticket and select(8, parts(ticket)) == execution then
      withdraw(member, ticket)
      answers[i] = 'withdrawn'
    end
  end
  if returned ~= 0 and closed then open(string.sub(project, 3), string.match(domain, ':([^:]*)$')) end
  settle(millis)
end
return answers
