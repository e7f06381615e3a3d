-- A pool's queue: giving back what ended, and handing units on to the tickets whose turn it is.
--
-- Stands for the line that includes it; README.md says what the keys hold. Expects the locals call, pool, usage, grants,
-- leases, tickets, queue, lines, turns and shares. Constants go into commands as text, because turning Lua numbers into
-- strings is what costs.

-- Most leases to end, and most tickets to grant to, in one call; what is left is due at once and done by the next.
local ENDED, HANDED = 20, 100
-- Virtual time of one unit at weight 1, in the order of fair shares.
local UNIT = 1000000
-- What one level of priority is worth, in microseconds of waiting.
local LEVEL = 30000000

local order, issued, issue_limit, quota, virtual, noted, closed, now
-- Until when nobody new is admitted, in milliseconds, while the pool learns who holds its units.
local learning

local function text(number) return string.format('%.0f', number) end

local function scope_of(member) return string.match(member, '^ex:([^:]*):([^:]*):') end

-- Reads the clock and the pool's state; returns the clock in whole milliseconds.
local function look()
  now = call('TIME')
  local millis = math.floor(now[1] * 1000 + now[2] / 1000)
  local state = call('HMGET', usage, 'issued', 'issue_limit', 'quota', 'order', 'virtual', 'due', 'closed', 'learns_until')
  issued, issue_limit, quota, order, virtual = state[1] + 0, state[2] + 0, state[3] + 0, state[4], (state[5] or 0) + 0
  noted, closed, learning = state[6], state[7], state[8]
  if learning and learning + 0 <= millis then
    call('HDEL', usage, 'learns_until')
    learning = nil
  end
  return millis
end

-- Whether a lease or a ticket may be over: none ends before what is noted as due.
local function may_be_over(millis) return not noted or noted + 0 <= millis end

-- Sets when what a member has ends by itself, in milliseconds of the server's clock.
local function lasts(member, ends)
  ends = text(ends)
  call('ZADD', leases, ends, member)
  local due = call('HGET', usage, 'due')
  if not due or ends + 0 < due + 0 then call('HSET', usage, 'due', ends) end
end

-- Changes the counters of a scope, without leaving zeros.
local function count(project, domain, units)
  for _, field in ipairs({ 'p:' .. project, 'd:' .. project .. ':' .. domain }) do
    if call('HINCRBY', usage, field, units) == 0 then call('HDEL', usage, field) end
  end
end

-- The first entries of a line.
local function entries(line, most)
  return call('ZRANGEBYLEX', lines, '[' .. line .. ' ', '(' .. line .. '!', 'LIMIT', '0', most)
end

-- An entry of a line in parts: its rank of 16 digits, and the ticket's member or the domain's name.
local function ranked(line, entry)
  if entry then return string.sub(entry, #line + 2, #line + 17), string.sub(entry, #line + 19) end
end

-- What stands first in a line.
local function first(line) return ranked(line, entries(line, '1')[1]) end

-- Gives a project its turn by the first of its domains that may run, or takes the turn away if there is none.
local function open_project(project)
  local rank = first(project)
  if not rank then
    call('ZREM', turns, project)
  elseif order ~= 'fair' then
    call('ZADD', turns, rank, project)
  elseif not call('ZSCORE', turns, project) then
    call('ZADD', turns, text(math.max(virtual, (call('ZSCORE', shares, project) or 0) + 0)), project)
  end
end

-- Lets the first ticket of a domain, and its project, be looked at again: when units of the domain came back, only where a
-- cap may have taken a place or a turn away (`closed`).
local function open(project, domain)
  local rank = first(project .. ':' .. domain)
  if rank then call('ZADD', lines, '0', project .. ' ' .. rank .. ' ' .. domain) end
  open_project(project)
end

-- Notes that a cap took a place or a turn away.
local function close()
  if closed then return end
  closed = '1'
  call('HSET', usage, 'closed', closed)
end

-- Takes a ticket out of the queue.
local function dequeue(member, rank, project, domain)
  call('HDEL', tickets, member)
  call('ZREM', queue, member)
  call('ZREM', lines, project .. ':' .. domain .. ' ' .. rank .. ' ' .. member, project .. ' ' .. rank .. ' ' .. domain)
  -- Where counters were lost it may have been too small.
  if call('HINCRBY', usage, 'tickets', '-1') <= 0 then
    call('HDEL', usage, 'tickets', 'closed')
    closed = nil
  end
end

-- Withdraws a ticket: it will not run.
local function withdraw(member, record)
  local project, domain = scope_of(member)
  dequeue(member, string.match(record, '^%d+ (%d+) '), project, domain)
  call('ZREM', leases, member)
  open(project, domain)
end

-- Withdraws the ticket of a member that turns out to hold already, because another writer put it into the pool. Else it
-- would be granted, and counted, once more.
local function unfile(member)
  local record = call('HGET', tickets, member)
  if record then withdraw(member, record) end
end

-- Gives back what a member holds.
local function free(member, units)
  call('SREM', pool, member)
  call('HDEL', grants, member)
  call('ZREM', leases, member)
  call('HINCRBY', usage, 'issue_limit', units)
  issue_limit = issue_limit + units
  local project, domain = scope_of(member)
  if not project then return end
  count(project, domain, '-' .. units)
  if closed then open(project, domain) end
end

-- Records a grant and counts its units.
local function grant(member, units, holder, execution, project, domain)
  local fence = text(issued)
  call('SADD', pool, member)
  call('HSET', grants, member, units .. ' ' .. fence .. ' ' .. now[1] .. ' ' .. holder .. ' ' .. execution)
  call('HINCRBY', usage, 'issued', units)
  call('HINCRBY', usage, 'p:' .. project, units)
  call('HINCRBY', usage, 'd:' .. project .. ':' .. domain, units)
  issued = issued + units
  return fence
end

-- Whether a number is of a grant that the server has forgotten: of a pool before this one, of another server's reign, or
-- larger than any that was given here.
local function is_forgotten(number)
  if number == '-' then return false end
  local made, lost_from, lost_to = unpack(call('HMGET', usage, 'made', 'lost_from', 'lost_to'))
  number = number + 0
  return number < (made or 0) + 0 or number >= issued
    or lost_from and number >= lost_from + 0 and number < lost_to + 0
end

-- Has the next grant get a larger number than this one, without a change to what is free.
local function exceed(number)
  local ahead = number + 1 - issued
  if ahead <= 0 then return end
  call('HINCRBY', usage, 'issued', text(ahead))
  call('HINCRBY', usage, 'issue_limit', text(ahead))
  issued, issue_limit = issued + ahead, issue_limit + ahead
end

-- A ticket's record in parts: units, rank, project cap, domain cap, since, channel, holder, execution.
local function parts(record)
  return string.match(record, '^([0-9]+) ([0-9]+) ([^ ]+) ([^ ]+) ([0-9]+) ([^ ]+) ([^ ]+) (.*)$')
end

-- Whether units more would exceed a cap of a scope.
local function exceeds(field, units, cap)
  return cap ~= '-' and (call('HGET', usage, field) or 0) + units > cap + 0
end

-- Sends a notice. It is only a hint, so what is on its way does not depend on whether it may be sent.
local function tell(channel, message)
  if string.sub(channel, 1, 1) == '{' then
    redis.pcall('SPUBLISH', channel, message)
  elseif channel ~= '-' then
    redis.pcall('PUBLISH', channel, message)
  end
end

-- Counts the fair share of a project that has its turn; returns where it ends.
local function take_share(project, units)
  virtual = call('ZSCORE', turns, project) + 0
  local weight = call('HGET', usage, 'w:' .. project) or 1
  local finish = text(virtual + math.max(math.floor(units * UNIT / weight), 1))
  call('ZADD', shares, finish, project)
  for _, past in ipairs(call('ZRANGEBYSCORE', shares, '-inf', text(virtual), 'LIMIT', '0', '2')) do
    call('ZREM', shares, past)
  end
  call('HSET', usage, 'virtual', text(virtual))
  return finish
end

-- Hands free units on to the tickets whose turn it is. What a cap of its own scope stops loses its turn until the scope's
-- units come back; what the quota stops keeps its turn, and all others wait behind it. Returns whether that is all.
local function hand_on(millis)
  -- Whoever had them before may come back.
  if learning then return true end
  for _ = 1, HANDED do
    local project = call('ZRANGE', turns, '0', '0')[1]
    if not project then return true end
    local domains = entries(project, '2')
    local rank, domain = ranked(project, domains[1])
    local line, waiting, member, record
    if rank then
      line = project .. ':' .. domain
      waiting = entries(line, '2')
      _, member = ranked(line, waiting[1])
      record = member and call('HGET', tickets, member)
    end
    if not rank then
      call('ZREM', turns, project)
    elseif not record then
      call('ZREM', lines, project .. ' ' .. rank .. ' ' .. domain)
    else
      local units, _, project_cap, domain_cap, _, channel, holder, execution = parts(record)
      if exceeds('p:' .. project, units, project_cap) then
        call('ZREM', turns, project)
        close()
      elseif exceeds('d:' .. project .. ':' .. domain, units, domain_cap) then
        call('ZREM', lines, project .. ' ' .. rank .. ' ' .. domain)
        open_project(project)
        close()
      elseif may_be_over(millis) and (call('ZSCORE', leases, member) or 0) + 0 <= millis then
        withdraw(member, record)
      elseif units + 0 > quota then
        withdraw(member, record)
        tell(channel, 'gone ' .. pool .. ' ' .. member)
      elseif issued + units > issue_limit then
        return true
      else
        dequeue(member, rank, project, domain)
        local fence = grant(member, units, holder, execution, project, domain)
        local finish = order == 'fair' and take_share(project, units)
        -- The next in its line, and in the project's.
        local next_rank = ranked(line, waiting[2])
        if next_rank then call('ZADD', lines, '0', project .. ' ' .. next_rank .. ' ' .. domain) end
        local turn_rank = ranked(project, domains[2])
        if next_rank and not (turn_rank and turn_rank < next_rank) then turn_rank = next_rank end
        if turn_rank then
          call('ZADD', turns, finish or turn_rank, project)
        else
          call('ZREM', turns, project)
        end
        tell(channel, 'granted ' .. fence .. ' ' .. pool .. ' ' .. member)
        if issued >= issue_limit then return true end
      end
    end
  end
  return false
end

-- Ends the leases that are over, oldest first, hands units on, and notes when something is due next, if what was noted has
-- come. Looks at the pool first, unless the caller did and gives what that returned. Returns the clock in milliseconds, and
-- whether that is all.
local function settle(looked)
  local millis = looked or look()
  local over = may_be_over(millis)
  local ended = over and call('ZRANGEBYSCORE', leases, '-inf', millis, 'LIMIT', '0', ENDED) or {}
  for _, member in ipairs(ended) do
    local record = call('HGET', grants, member)
    local units = record and string.match(record, '^(%d+) ')
    if units then
      free(member, units)
    else
      local ticket = call('HGET', tickets, member)
      if ticket then withdraw(member, ticket) else call('ZREM', leases, member) end
    end
  end
  local done = hand_on(millis) and #ended < ENDED
  if not done then
    call('HSET', usage, 'due', '0')
  elseif over then
    local due = call('ZRANGE', leases, '0', '0', 'WITHSCORES')[2]
    if learning and (not due or learning + 0 < due + 0) then due = learning end
    if due then call('HSET', usage, 'due', due) else call('HDEL', usage, 'due') end
  end
  return millis, done
end

-- Writes a ticket's record.
local function file(member, units, rank, project_cap, domain_cap, since, channel, holder, execution)
  call('HSET', tickets, member, units .. ' ' .. rank .. ' ' .. project_cap .. ' ' .. domain_cap .. ' ' .. since .. ' '
    .. channel .. ' ' .. holder .. ' ' .. execution)
end

-- The rank of a ticket that was given a number.
local function rank_of(number, priority)
  return string.format('%016.0f', order == 'priority' and number - priority * LEVEL or number)
end

-- Puts a ticket into the queue.
local function line_up(member, units, rank, project, domain, project_cap, domain_cap, since, channel, holder, execution)
  file(member, units, rank, project_cap, domain_cap, since, channel, holder, execution)
  call('HINCRBY', usage, 'tickets', '1')
  call('ZADD', queue, rank, member)
  local line = project .. ':' .. domain
  local was_first = first(line)
  call('ZADD', lines, '0', line .. ' ' .. rank .. ' ' .. member)
  local _, first_member = first(line)
  if first_member == member then
    if was_first then call('ZREM', lines, project .. ' ' .. was_first .. ' ' .. domain) end
    open(project, domain)
  end
end

-- Gives a new ticket its place.
local function enqueue(member, units, project, domain, project_cap, domain_cap, priority, channel, holder, execution)
  local number = math.max(now[1] * 1000000 + now[2], (call('HGET', usage, 'ticket') or 0) + 1)
  call('HSET', usage, 'ticket', text(number))
  local rank = rank_of(number, priority)
  -- The number may be ahead of the clock.
  local since = text(math.floor(number / 1000000))
  line_up(member, units, rank, project, domain, project_cap, domain_cap, since, channel, holder, execution)
end

-- Takes over what a repeated claim brings. The ticket keeps its place; in the order of priority, the one that it would have
-- had if it had been filed with this priority.
local function refile(member, units, rank, project, domain, project_cap, domain_cap, since, priority, channel, holder, execution)
  local moved = rank
  if order == 'priority' then
    -- Its second less its rank is what its priority was worth, but for the part of a second.
    local before = math.max(math.floor((since * 1000000 - rank) / LEVEL + 0.5), 0)
    moved = rank_of(rank + before * LEVEL, priority)
  end
  -- Where its rank was lost it is lined up anew.
  if moved == rank and call('ZSCORE', queue, member) then
    file(member, units, rank, project_cap, domain_cap, since, channel, holder, execution)
  else
    dequeue(member, rank, project, domain)
    line_up(member, units, moved, project, domain, project_cap, domain_cap, since, channel, holder, execution)
  end
  open(project, domain)
end
