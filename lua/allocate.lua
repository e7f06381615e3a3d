-- Claims units for one token: decides, counts and records in one step.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- ARGV[1] member: ex:<project>:<domain>:<execution>-<token>
-- ARGV[2] units: at least 1
-- ARGV[3] execution: its name
-- ARGV[4] holder: who claims, without white space
-- ARGV[5] project: field p:<project> of usage
-- ARGV[6] domain: field d:<project>:<domain> of usage
-- ARGV[7] project_cap: most units of the project, or empty
-- ARGV[8] domain_cap: most units of the domain, or empty
-- Returns an answer (see README.md): granted, held, conflict, pool, project, domain, unregistered, newer
-- Cost: 7 commands granted, 3 refused by the quota, whatever the number of holders and scopes

local call, pcall = redis.call, redis.pcall
local pool, usage, grants = KEYS[1], KEYS[2], KEYS[3]
local member, units, execution, holder, project, domain, project_cap, domain_cap = unpack(ARGV)

-- Strings from HMGET and ARGV go back into commands and records as they are: turning Lua numbers
-- into strings is what costs here.
local counters = call('HMGET', usage, 'issued', 'issue_limit')
local fence, limit = counters[1], counters[2]
if not limit then
  local schema = call('HGET', usage, 'schema')
  return schema and schema ~= '1' and 'newer ' .. schema or 'unregistered'
end

local refusal, added
if fence + units > limit + 0 then
  local quota = call('HGET', usage, 'quota')
  refusal = 'pool ' .. (quota - limit + fence) .. ' ' .. quota
else
  local in_project = call('HINCRBY', usage, project, units)
  local in_domain = call('HINCRBY', usage, domain, units)
  local failure
  if project_cap ~= '' and in_project > project_cap + 0 then
    refusal = 'project ' .. (in_project - units) .. ' ' .. project_cap
  elseif domain_cap ~= '' and in_domain > domain_cap + 0 then
    refusal = 'domain ' .. (in_domain - units) .. ' ' .. domain_cap
  else
    added = pcall('SADD', pool, member)
    if added == 1 then
      local now = call('TIME')
      local recorded = pcall('HSETNX', grants, member,
        units .. ' ' .. fence .. ' ' .. now[1] .. ' ' .. holder .. ' ' .. execution)
      if recorded == 1 then
        call('HINCRBY', usage, 'issued', units)
        return 'granted ' .. fence
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

if refusal and call('SISMEMBER', pool, member) == 0 then return refusal end

local record = call('HGET', grants, member)
local held_units, held_fence, held_by
if record then held_units, held_fence, held_by = string.match(record, '^(%d+) (%d+) %d+ %S+ (.*)$') end
if not held_units then
  -- Another writer holds it without a record, so it was never counted: from now on it is.
  local now = call('TIME')
  call('HSET', grants, member, units .. ' ' .. fence .. ' ' .. now[1] .. ' ' .. holder .. ' ' .. execution)
  call('HINCRBY', usage, project, units)
  call('HINCRBY', usage, domain, units)
  call('HINCRBY', usage, 'issued', units)
  return 'granted ' .. fence
end
if held_units == units and (held_by == execution or held_by == '') then return 'held ' .. held_fence end
if added == 1 then call('SREM', pool, member) end
return 'conflict ' .. held_units .. ' ' .. held_by
