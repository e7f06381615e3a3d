-- Renews leases and tickets, ends what is over, and hands units on.
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
-- ARGV[1..] member, execution, lease: of each; execution is its name, the lease or ticket ends after so many milliseconds
-- Returns an array with an answer (see README.md) per member: held, queued, unheld, conflict, foreign; at its end, if more
-- is due than one call does: more; or one answer for all: unregistered, newer
-- Cost: 4 commands for any number of leases, of which two are in proportion to it; one more if one is the next to end;
-- more while tickets wait or a lease has ended, logarithmic in their number

local call, match = redis.call, string.match
local pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS)

local state = call('HMGET', usage, 'schema', 'due', 'tickets')
if state[1] ~= '1' then return state[1] and 'newer ' .. state[1] or 'unregistered' end
local time, due, more = call('TIME'), state[2], false
local millis = math.floor(time[1] * 1000 + time[2] / 1000)
if state[3] or due and millis >= due + 0 then
  --- include queue.lua
  local _, done = settle()
  more = not done
  due = call('HGET', usage, 'due')
end

local members, answers = {}, {}
for i = 1, #ARGV / 3 do members[i] = ARGV[3 * i - 2] end
local records, filed = #members > 0 and call('HMGET', grants, unpack(members)), nil

local renewed, size, soonest = {}, 0, nil
local last_lease, ends
for i = 1, #members do
  local member = members[i]
  local execution, lease, record, answer = ARGV[3 * i - 1], ARGV[3 * i], records[i], 'unheld'
  local fence, held_by
  if record then
    -- Sets, since classes like %S ask the locale about each character.
    fence, held_by = match(record, '^[0-9]+ ([0-9]+) [0-9]+ [^ ]+ (.*)$')
    answer = 'held ' .. (fence or 0)
  else
    filed = filed or state[3] and call('HMGET', tickets, unpack(members)) or {}
    record = filed[i]
    if record then
      held_by = match(record, '^%d+ %d+ %S+ %S+ %d+ %S+ %S+ (.*)$')
      answer = 'queued'
    end
  end
  if not held_by then
    if call('SISMEMBER', pool, member) == 1 then answer = 'foreign' end
  elseif held_by ~= execution and held_by ~= '' then
    answer = 'conflict ' .. match(record, '^%d+') .. ' ' .. held_by
  else
    -- As a rule all last equally long, and turning numbers into strings is what costs here.
    if lease ~= last_lease then
      last_lease, ends = lease, string.format('%.0f', millis + lease)
      if not soonest or ends + 0 < soonest + 0 then soonest = ends end
    end
    renewed[size + 1], renewed[size + 2] = ends, member
    size = size + 2
  end
  answers[i] = answer
end
if soonest then
  -- What has no lease gets none.
  call('ZADD', leases, 'XX', unpack(renewed))
  if due and soonest + 0 < due + 0 then call('HSET', usage, 'due', soonest) end
end
if more then answers[#answers + 1] = 'more' end
return answers
