-- Gives back the units of one or many tokens of one domain of a project.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- ARGV[1] execution: name of the one that may release, or empty for any
-- ARGV[2] project: field p:<project> of usage, or empty for members without a scope
-- ARGV[3] domain: field d:<project>:<domain> of usage, or empty for members without a scope
-- ARGV[4..] member: ex:<project>:<domain>:<execution>-<token>
-- Returns an array with an answer (see README.md) per member: released, unheld; or one answer for all: unregistered,
-- newer
-- Cost: 4 commands, and 3 for each member, whatever the number of holders and scopes

local call, pcall = redis.call, redis.pcall
local pool, usage, grants = KEYS[1], KEYS[2], KEYS[3]
local execution, project, domain = unpack(ARGV, 1, 3)

local counters = call('HMGET', usage, 'schema', project, domain)
if counters[1] ~= '1' then return counters[1] and 'newer ' .. counters[1] or 'unregistered' end

local answers, returned = {}, 0
for i = 4, #ARGV do
  local member, answer = ARGV[i], 'unheld'
  local record = call('HGET', grants, member)
  local units, held_by
  if record then units, held_by = string.match(record, '^(%d+) %d+ %d+ %S+ (.*)$') end
  if not units or execution == '' or held_by == execution or held_by == '' then
    local removed = pcall('SREM', pool, member)
    if removed ~= 0 and removed ~= 1 then return removed end
    if record then call('HDEL', grants, member) end
    if units then
      -- The first stays a string: turning Lua numbers into strings is what costs here.
      returned = returned == 0 and units or returned + units
      answer = 'released ' .. units
    elseif removed == 1 then
      answer = 'released 0'
    end
  end
  answers[#answers + 1] = answer
end

if returned ~= 0 then
  if type(returned) == 'number' then returned = string.format('%.0f', returned) end
  call('HINCRBY', usage, 'issue_limit', returned)
  local less, in_project, in_domain = '-' .. returned, counters[2], counters[3]
  if project ~= '' then
    if in_project == returned then call('HDEL', usage, project) else call('HINCRBY', usage, project, less) end
    if in_domain == returned then call('HDEL', usage, domain) else call('HINCRBY', usage, domain, less) end
  end
end
return answers
