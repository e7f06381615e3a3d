-- Tells the versions of one path that are kept, the newest first.
--
-- KEYS[1] records: HASH of the paths' records
-- KEYS[2] history: HASH of last versions and of records that are in force no more
-- ARGV[1] path: whose versions
-- ARGV[2] kept: how many versions are kept
-- Returns {record, ...}
-- Cost: 2 commands, and 1 for each version

local call = redis.call
local records, history = unpack(KEYS)
local path, kept = unpack(ARGV)

local versions = { call('HGET', records, path) or nil }
local last = tonumber(call('HGET', history, path) or 0)
for version = last, math.max(last - kept + 1, 1), -1 do
  local record = call('HGET', history, string.format('%.0f ', version) .. path)
  if record then versions[#versions + 1] = record end
end
return versions
