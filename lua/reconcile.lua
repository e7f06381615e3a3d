-- Makes records and members agree: adopts members that another writer put into the pool, drops records of members that
-- it removed.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- ARGV[1] holder: to be recorded for adopted members, without white space
-- ARGV[2..] member: to look at; what agrees is left alone
-- Returns {members adopted with one unit each, records dropped}, or an answer (see README.md): unregistered, newer
-- Cost: 2 commands, and at most 8 for each member

local call = redis.call
local pool, usage, grants = KEYS[1], KEYS[2], KEYS[3]
local holder = ARGV[1]

local state = call('HMGET', usage, 'schema', 'issued')
if state[1] ~= '1' then return state[1] and 'newer ' .. state[1] or 'unregistered' end
local issued, now = state[2] + 0, call('TIME')

local function count(member, units)
  local project, domain = string.match(member, '^ex:([^:]*):([^:]*):')
  if not project then return end
  for i, field in ipairs({ 'p:' .. project, 'd:' .. project .. ':' .. domain }) do
    if call('HINCRBY', usage, field, units) == 0 then call('HDEL', usage, field) end
  end
end

local adopted, dropped = 0, 0
for i = 2, #ARGV do
  local member = ARGV[i]
  local record = call('HGET', grants, member)
  local units = record and string.match(record, '^([1-9]%d*) %d+ %d+ %S+ .*$')
  if call('SISMEMBER', pool, member) == 0 then
    if record then
      call('HDEL', grants, member)
      if units then
        call('HINCRBY', usage, 'issue_limit', units)
        count(member, '-' .. units)
      end
      dropped = dropped + 1
    end
  elseif not units then
    call('HSET', grants, member, '1 ' .. string.format('%.0f', issued) .. ' ' .. now[1] .. ' ' .. holder .. ' ')
    issued = issued + 1
    call('HINCRBY', usage, 'issued', 1)
    count(member, 1)
    adopted = adopted + 1
  end
end
return { adopted, dropped }
