-- Sets or deletes the attributes of one path, if the version found is the expected one.
--
-- KEYS[1] records: HASH of the paths' records
-- KEYS[2] paths: ZSET of the paths that have one, all with score 0
-- KEYS[3] history: HASH of last versions and of records that are in force no more
-- ARGV[1] path: where
-- ARGV[2] expected: the version that has to be found, - for none, or empty for any
-- ARGV[3] kept: how many versions are kept
-- ARGV[4] by: who writes
-- ARGV[5] value: in JSON, or empty to delete
-- Returns {version from now on or empty, record before or empty}, or an answer (see README.md): stale; a write that is
-- repeated because its reply was lost is not done again
-- Cost: 8 commands at most

local call = redis.call
local records, paths, history = unpack(KEYS)
local path, expected, kept, by, value = unpack(ARGV)

local before = call('HGET', records, path)
local found = before and (string.match(before, '^(%d+) ') or '0') or '-'
local last = tonumber(call('HGET', history, path) or tonumber(found) or 0)

-- Names a version of the path in its history.
local function of(version) return string.format('%.0f ', version) .. path end

if expected ~= '' and expected ~= found then
  local newest = before or call('HGET', history, of(last)) or ''
  local written_by, written = string.match(newest, '^%d+ %d+ ([^ ]*) (.*)$')
  if written == value and written_by == by then
    local replaced = call('HGET', history, of(last - 1)) or ''
    if string.sub(replaced, -1) == ' ' then replaced = '' end
    if expected == (replaced == '' and '-' or string.match(replaced, '^%d+')) then
      return { string.format('%.0f', last), replaced }
    end
  end
  return 'stale ' .. found
end
if value == '' and not before then
  return { last > 0 and string.format('%.0f', last) or '', '' }
end

local now = call('TIME')
local millis = math.floor(now[1] * 1000 + now[2] / 1000)
local version = math.max(last, tonumber(found) or 0) + 1
local record = string.format('%.0f %.0f %s ', version, millis, by) .. value
-- The types of all keys have shown before the record is changed.
if value == '' then
  call('ZREM', paths, path)
  call('HSET', history, path, version, of(version), record)
  call('HDEL', records, path)
else
  call('ZADD', paths, 0, path)
  call('HSET', history, path, version)
  call('HSET', records, path, record)
end
if before and found ~= '0' then call('HSET', history, of(tonumber(found)), before) end
call('HDEL', history, of(version - kept))
return { string.format('%.0f', version), before or '' }
