-- Lists the tickets of a pool by rank, in pages.
--
-- KEYS[1] usage: HASH of the pool's counters
-- KEYS[2] leases: ZSET of members by the end of their leases
-- KEYS[3] tickets: HASH of the tickets' records
-- KEYS[4] queue: ZSET of the tickets by rank
-- ARGV[1] rank: where to begin, 0 at first
-- ARGV[2] count: tickets to a page
-- Returns {rank where the next page begins or 0, {member, record, milliseconds that the ticket lasts, ...}}, or an answer (see
-- README.md): unregistered, newer; tickets of the same rank may be on two pages
-- Cost: 3 commands, and 2 for each ticket of the page

local call = redis.call
local usage, leases, tickets, queue = unpack(KEYS)
local rank, count = unpack(ARGV)

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
local now = call('TIME')
local millis = math.floor(now[1] * 1000 + now[2] / 1000)
local page, list = call('ZRANGEBYSCORE', queue, rank, '+inf', 'WITHSCORES', 'LIMIT', 0, count + 1), {}
local next_rank = page[2 * count + 2] or '0'
for i = 1, math.min(#page, 2 * count), 2 do
  local member = page[i]
  local ends = call('ZSCORE', leases, member) or millis
  list[#list + 1] = member
  list[#list + 1] = call('HGET', tickets, member) or ''
  list[#list + 1] = string.format('%.0f', math.max(ends - millis, 0))
end
return { next_rank, list }
