-- Tells a pool which server decides about it from now on. If that was another one before, this may have forgotten what was
-- granted last: fencing numbers go on behind all that can have been given, and the pool learns who holds its units.
--
-- KEYS[1] usage: HASH of the pool's counters
-- ARGV[1] server: its run_id
-- ARGV[2] period: milliseconds that the pool learns after data were lost, or 0; if a manager registered more, that counts
-- ARGV[3] is_told: whether it was told on this connection, unless the pool is another one since: 1 or 0
-- Returns {done, server before or empty, learns_until or empty}, or an answer (see README.md): unregistered, newer
-- Cost: at most 6 commands

local call = redis.call
local usage = KEYS[1]
local server, period, is_told = unpack(ARGV)

local state = call('HMGET', usage, 'schema', 'server', 'issued', 'learns_for', 'learns_until', 'due', 'lost_from')
local schema, before, issued, registered, learns_until, due, lost_from = unpack(state)
if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
if before == server and is_told == '1' then return { 'done', before, learns_until or '' } end

-- Takes away before it adds: a server without memory lets a script go on that begins so, and units can be released there.
call('HDEL', usage, 'server')
call('HSET', usage, 'server', server)

-- Numbers start from a clock and grow by less than a million a second, so no server before has reached what it shows now.
local time = call('TIME')
local next_issued = math.max(issued + 0, time[1] * 1000000 + time[2])
local ahead = string.format('%.0f', next_issued - issued)
if ahead ~= '0' then
  call('HINCRBY', usage, 'issued', ahead)
  call('HINCRBY', usage, 'issue_limit', ahead)
end
-- The first that is heard of may be another than made the pool, which nobody can tell; but no number is given twice.
if not before or before == server then return { 'done', before or '', learns_until or '' } end

local millis = math.floor(time[1] * 1000 + time[2] / 1000)
-- Who has not come back since the last loss is not forgotten.
if not (lost_from and learns_until and learns_until + 0 > millis) then lost_from = issued end
local fields = { 'lost_from', lost_from, 'lost_to', string.format('%.0f', next_issued) }
period = math.max(period + 0, (registered or 0) + 0)
if period > 0 then
  learns_until = string.format('%.0f', math.max(millis + period, (learns_until or 0) + 0))
  if not due or learns_until + 0 < due + 0 then due = learns_until end
  for _, word in ipairs({ 'learns_until', learns_until, 'due', due }) do fields[#fields + 1] = word end
end
call('HDEL', usage, 'learned')
call('HSET', usage, unpack(fields))
return { 'done', before, learns_until or '' }
