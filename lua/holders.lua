-- Lists who holds units of a pool, in pages.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- KEYS[4] leases: ZSET of members by the end of their leases
-- ARGV[1] cursor: 0 to begin
-- ARGV[2] count: about how many holders to a page
-- Returns {next cursor or 0, {member, record or empty, milliseconds left of its lease or empty, ...}}, or an answer (see
-- README.md): unregistered, newer; a member held throughout the listing is on at least one page
-- Cost: 3 commands, and 2 for each holder of the page

local call = redis.call
local pool, usage, grants, leases = unpack(KEYS)
local cursor, count = unpack(ARGV)

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
local now = call('TIME')
local millis = math.floor(now[1] * 1000 + now[2] / 1000)
local page, list = call('SSCAN', pool, cursor, 'COUNT', count), {}
for _, member in ipairs(page[2]) do
  local ends = call('ZSCORE', leases, member)
  list[#list + 1] = member
  list[#list + 1] = call('HGET', grants, member) or ''
  list[#list + 1] = ends and string.format('%.0f', math.max(ends - millis, 0)) or ''
end
return { page[1], list }
