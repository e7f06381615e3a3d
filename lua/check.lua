-- Reads a pool in pages, to compare its counters, its records and its members.
--
-- Pages belong together if issued, issue_limit, quota and epoch are the same in all of them: every grant raises the
-- first, every release the second.
--
-- KEYS[1] pool: SET of granted members
-- KEYS[2] usage: HASH of the pool's counters
-- KEYS[3] grants: HASH of the grants' records
-- KEYS[4] leases: ZSET of members by the end of their leases
-- KEYS[5] tickets: HASH of the tickets' records
-- KEYS[6] queue: ZSET of the tickets by rank
-- KEYS[7] lines: ZSET of the tickets by domain, of the domains by project
-- KEYS[8] turns: ZSET of the projects whose turn it may be
-- ARGV[1] members: cursor in pool, 0 to begin, empty when done
-- ARGV[2] scopes: cursor in usage, likewise
-- ARGV[3] records: cursor in grants, likewise
-- ARGV[4] count: about how many entries of each to a page
-- Returns {issued, issue_limit, quota, epoch, tickets counted, their records, their ranks, entries of lines, turns, 1 if a cap
-- closed any or 0, leases, page of members, page of scopes, page of records}, where a page is {next cursor or 0, {entry, ...}} and members stand alone while
-- scopes and records are followed by their values; or an answer (see README.md): unregistered, newer
-- Cost: 9 commands, three of them in proportion to the page

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns = unpack(KEYS)
local members, scopes, records, count = unpack(ARGV)

local state = call('HMGET', usage, 'schema', 'issued', 'issue_limit', 'quota', 'epoch', 'tickets', 'closed')
if state[1] ~= '1' then return state[1] and 'newer ' .. state[1] or 'unregistered' end
local function page(command, key, cursor)
  if cursor == '' then return { '0', {} } end
  return call(command, key, cursor, 'COUNT', count)
end
return {
  state[2], state[3], state[4], state[5], state[6] or '0', call('HLEN', tickets), call('ZCARD', queue),
  call('ZCARD', lines), call('ZCARD', turns), state[7] or '0', call('ZCARD', leases),
  page('SSCAN', pool, members), page('HSCAN', usage, scopes), page('HSCAN', grants, records),
}
