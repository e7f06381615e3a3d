-- Reads the counters of a pool, its scopes in pages.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- ARGV[1] cursor: 0 to begin
-- ARGV[2] count: about how many scopes to a page
-- Returns {issued, issue_limit, quota, registered, pinned or empty, made, members, tickets, order, milliseconds that it learns
-- or empty, lost_from or empty, lost_to or empty, next cursor or 0, {field, value, ...}}, or an answer (see README.md):
-- unregistered, newer
-- Cost: 3 commands, one of them in proportion to the page; 4 while the pool learns

local call = redis.call
local pool, usage = KEYS[1], KEYS[2]
local cursor, count = unpack(ARGV)

local state = call('HMGET', usage, 'schema', 'issued', 'issue_limit', 'quota', 'registered', 'pinned', 'tickets',
  'order', 'made', 'learns_until', 'lost_from', 'lost_to')
local schema = state[1]
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
local left = ''
if state[10] then
  local time = call('TIME')
  left = math.floor(state[10] - (time[1] * 1000 + time[2] / 1000))
  left = left > 0 and string.format('%.0f', left) or ''
end
local page = call('HSCAN', usage, cursor, 'COUNT', count)
return { state[2], state[3], state[4], state[5], state[6] or '', state[9] or '0', call('SCARD', pool), state[7] or '0',
  state[8] or 'fifo', left, state[11] or '', state[12] or '', page[1], page[2] }
