-- Lists the attributes of a kind in the order of their paths, in pages.
--
-- KEYS[1] records: HASH of the paths' records
-- KEYS[2] paths: ZSET of the paths that have one, all with score 0
-- ARGV[1] own: a path that stands before the range, or empty
-- ARGV[2] from: where the range begins, as ZRANGEBYLEX takes it
-- ARGV[3] to: where it ends
-- ARGV[4] domain: the only one that is listed, or empty
-- ARGV[5] count: how many paths to look at
-- ARGV[6] bytes: after how many the page ends
-- Returns {path after which the next page begins or empty, path, record, ...}
-- Cost: 1 command, and 1 for each path listed

local call = redis.call
local records, paths = unpack(KEYS)
local own, from, to, domain, count, bytes = unpack(ARGV)

local page, length = { '' }, 0
local function list(path)
  if domain ~= '' and string.match(path, '^[^:]*:([^:]*)') ~= domain then return end
  local record = call('HGET', records, path)
  if not record then return end
  page[#page + 1] = path
  page[#page + 1] = record
  length = length + #record
end

if own ~= '' then list(own) end
local range = call('ZRANGEBYLEX', paths, from, to, 'LIMIT', 0, count)
for i, path in ipairs(range) do
  list(path)
  if i == tonumber(count) or length > tonumber(bytes) then
    page[1] = path
    break
  end
end
return page
