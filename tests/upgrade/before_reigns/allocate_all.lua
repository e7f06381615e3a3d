-- Claims units of several pools, all or nothing.
--
-- KEYS[1..] the nine keys of allocate.lua: of each pool
-- ARGV[1..] member, units, execution, holder, project, domain, project_cap, domain_cap, lease: as for allocate.lua, of each
-- pool
-- Returns {0, answer of each pool: granted, held}, or {number of the pool that refused, its answer (see README.md): pool,
-- project, domain, queue, conflict, unregistered, newer}; then nothing was granted
-- Cost: at most 25 commands for each pool, whatever the number of holders and scopes

local call = redis.call
local pool, usage, grants, leases, tickets, queue, lines, turns, shares
--- include queue.lua

local millis
local function turn_to(i)
  pool, usage, grants, leases, tickets, queue, lines, turns, shares = unpack(KEYS, 9 * i - 8, 9 * i)
end
-- Does what is due in the pool turned to.
local function prepare()
  local schema = call('HGET', usage, 'schema')
  if schema ~= '1' then return schema and 'newer ' .. schema or 'unregistered' end
  settle()
end

local function decide(member, units, execution, _, project, domain, project_cap, domain_cap)
  -- Shows the key's type before anything is changed.
  call('ZCARD', leases)
  local record = call('HGET', grants, member)
  local held_units, held_fence, held_by
  if record then held_units, held_fence, held_by = string.match(record, '^(%d+) (%d+) %d+ %S+ (.*)$') end
  if held_units then
    if held_units ~= units or held_by ~= execution and held_by ~= '' then
      return 'conflict ' .. held_units .. ' ' .. held_by
    end
    return nil, 'held ' .. held_fence
  end
  if call('SISMEMBER', pool, member) == 1 then return nil, 'granted' end
  local numbers = text(issued) .. ' ' .. text(issue_limit) .. ' ' .. text(quota)
  if issued + units > issue_limit then return 'pool ' .. numbers end
  if call('EXISTS', turns) == 1 or first(string.sub(project, 3)) or first(string.sub(domain, 3)) then
    return 'queue ' .. numbers
  end
  for _, limit in ipairs({ { 'project ', project, project_cap }, { 'domain ', domain, domain_cap } }) do
    local in_use = call('HGET', usage, limit[2]) or '0'
    if limit[3] ~= '-' and in_use + units > limit[3] + 0 then return limit[1] .. in_use .. ' ' .. limit[3] end
  end
  return nil, 'granted'
end

local pools, answers = #KEYS / 9, {}
for i = 1, pools do
  turn_to(i)
  local refusal, answer = prepare(), nil
  if not refusal then refusal, answer = decide(unpack(ARGV, 9 * i - 8, 9 * i)) end
  if refusal then return { i, refusal } end
  answers[i] = answer
end
for i = 1, pools do
  local member, units, execution, holder, _, _, _, _, lease = unpack(ARGV, 9 * i - 8, 9 * i)
  turn_to(i)
  millis = look()
  if answers[i] == 'granted' then
    unfile(member)
    local project, domain = scope_of(member)
    answers[i] = 'granted ' .. grant(member, units, holder, execution, project, domain)
  else
    -- Another writer may have removed it.
    call('SADD', pool, member)
  end
  if lease ~= '-' then lasts(member, millis + lease) else call('ZREM', leases, member) end
end
return { 0, unpack(answers) }
