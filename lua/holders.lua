-- Lists who holds units of a pool, in pages.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- ARGV[1] cursor: 0 to begin
-- ARGV[2] count: about how many holders to a page
-- Returns {next cursor or 0, {member, record or empty, ...}}, or an answer (see README.md): unregistered, newer; a member
-- held throughout the listing is on at least one page
-- Cost: 2 commands, and 1 for each holder of the page

local call = redis.call
local pool, usage, grants = KEYS[1], KEYS[2], KEYS[3]
local cursor, count = unpack(ARGV)

local schema = call('HGET', usage, 'schema')
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
local page, list = call('SSCAN', pool, cursor, 'COUNT', count), {}
for i, member in ipairs(page[2]) do
  list[2 * i - 1], list[2 * i] = member, call('HGET', grants, member) or ''
end
return { page[1], list }
