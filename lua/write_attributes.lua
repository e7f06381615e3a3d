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
-- Returns {version from now on or empty, record before or empty}, or an answer (see README.md): stale; what is there already,
-- of the same author, is not written again, and a write that is repeated because its reply was lost is done once
-- Cost: 8 commands at most

local call = redis.call
local records, paths, history = unpack(KEYS)
local path, expected, kept, by, value = unpack(ARGV)

local before = call('HGET', records, path)
local found = before and (string.match(before, '^([1-9]%d*) ') or '0') or '-'
if #found > 15 then found = '0' end
local last = tonumber(call('HGET', history, path) or tonumber(found) or 0)

-- Names a version of the path in its history.
local function of(version) return string.format('%.0f ', version) .. path end

-- Whether a record is what is to be written.
local function is_written(record)
  local written_by, written = string.match(record, '^%d+ %d+ ([^ ]*) (.*)$')
  return written == value and written_by == by
end

if expected ~= '' and expected ~= found then
  if is_written(before or call('HGET', history, of(last)) or '') then
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
if value ~= '' and before and is_written(before) then return { found, before } end

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
