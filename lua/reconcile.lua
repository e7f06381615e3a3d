-- Makes records and members agree: adopts members that another writer put into the pool, drops records of members that
-- it removed, puts members back that were lost; hands units on.
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
-- ARGV[1] holder: to be recorded for adopted members, without white space
-- ARGV[2] lost: 1 if there was no member at all, so that the key may have been lost; else 0
-- ARGV[3..] member: to look at; what agrees is left alone
-- Returns {members adopted with one unit each, records dropped, members put back}, or an answer (see README.md):
-- unregistered, newer
-- Cost: 6 commands, and at most 9 for each member; more while tickets wait or a lease has ended

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)
local holder, lost = unpack(ARGV, 1, 2)

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
--- include queue.lua
look()

local adopted, dropped, restored = 0, 0, 0
for i = 3, #ARGV do
  local member = ARGV[i]
  local record = call('HGET', grants, member)
  local units = record and string.match(record, '^([1-9]%d*) %d+ %d+ %S+ .*$')
  if call('SISMEMBER', pool, member) == 0 then
    -- What is held too long comes back, with its lease or by an operator; what is dropped too soon is granted twice.
    if units and (lost == '1' or call('ZSCORE', leases, member)) then
      call('SADD', pool, member)
      restored = restored + 1
    elseif record then
      if units then free(member, units) else call('HDEL', grants, member) end
      dropped = dropped + 1
    end
  elseif not units then
    local project, domain = scope_of(member)
    unfile(member)
    call('HSET', grants, member, '1 ' .. text(issued) .. ' ' .. now[1] .. ' ' .. holder .. ' ')
    call('HINCRBY', usage, 'issued', 1)
    issued = issued + 1
    if project then count(project, domain, 1) end
    adopted = adopted + 1
  end
end
settle()
return { adopted, dropped, restored }
