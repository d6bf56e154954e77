"""What runs inside Redis: every operation of the store is one script, so it is one atomic step.

``KEYS[1]`` is the prefix P, whose hash tag gives all keys one slot of a cluster; the others are
named from it, because most gids are only found inside. ``ARGV[1]`` is the time in milliseconds, or
empty for the server's own clock.

=================  ==========  ===================================================================
key                type        content
=================  ==========  ===================================================================
P_g_<gid>          string      JSON of the transaction, as dtm writes it
P_b_<gid>          list        JSON of each branch, as dtm writes it, in creation order
P_s_<gid>          string      its status
P_u                zset        gid by next_cron_time in seconds, of the unfinished
P_kv_<cat>_<key>   string      JSON of an entry
P_l_<gid>          hash        ours: fence, owner, until (the lease's end), type, created, and for
                               each branch the place in the list, found by its id and op
P_w                zset        ours: gid by when it can be claimed, in ms: due, and lease over
P_f                zset        ours: gid by when it ended, in ms, of the finished
P_c                zset        ours: gid by number, in the order of creation
P_k                zset        ours: <cat>_<key> by number, in the order of creation
=================  ==========  ===================================================================

Nothing has a time to live. A script reads and refuses before it writes, and begins with a write
that Redis refuses when its memory is used up: then all of it is refused.

Source: dtm-labs/dtm dtmsvr/storage/redis/redis.go for the keys that are not ours.
"""

from hashlib import sha1

MAX_ROWS = 1_000
"""Rows that one script looks at: bounds how long the server does nothing else."""

MAX_BYTES = 8 << 20
"""Bytes of records after which a page or a claim is full, whatever its limit."""

_LIMITS = f"""
local MAX_ROWS, MAX_BYTES = {MAX_ROWS}, {MAX_BYTES}
"""

_COMMON = """
local P = KEYS[1]
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end

local function terminal(status) return status == 'succeed' or status == 'failed' end

-- An instant as dtm spells it, always 24 characters: days since 0000-03-01 become year, month, day.
local function spelled(ms)
  local floor = math.floor
  local second, day = floor(ms / 1000) % 86400, floor(ms / 86400000) + 719468
  local era = floor(day / 146097)
  local of_era = day - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524)
                      - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153)
  day = of_year - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
                       floor(second / 3600), floor(second / 60) % 60, second % 60, ms % 1000)
end

-- A branch or entry: `rest` is its JSON behind the stamps; `old`, if any, is what it replaces.
local at
local function stamped(rest, old)
  at = at or spelled(now)
  local created = old and string.sub(old, 1, 49) or '{"id":0,"create_time":"' .. at .. '",'
  return created .. '"update_time":"' .. at .. '",' .. rest
end

-- One more than the last in an index by number.
local function number(index)
  local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  return (last[2] or 0) + 1
end

local function schedule(gid, due, lease_until)
  if due then
    redis.call('ZADD', P .. '_u', due / 1000, gid)
    redis.call('ZADD', P .. '_w', math.max(due, lease_until), gid)
  else
    redis.call('ZREM', P .. '_u', gid)
    redis.call('ZREM', P .. '_w', gid)
  end
end

local function make_due(gid)
  local record = redis.call('GET', P .. '_g_' .. gid)
  local lease_until = tonumber(redis.call('HGET', P .. '_l_' .. gid, 'until'))
  -- next_cron_time is the last key of a record if it is there, and always as long
  local key = ',"next_cron_time":"'
  local ends = string.sub(record, -45, -27) == key and -46 or -2
  record = string.sub(record, 1, ends) .. key .. spelled(now) .. '"}'
  redis.call('SET', P .. '_g_' .. gid, record)
  schedule(gid, now, lease_until)
end

local function remove(gid)
  redis.call('UNLINK', P .. '_g_' .. gid, P .. '_b_' .. gid, P .. '_s_' .. gid, P .. '_l_' .. gid)
  redis.call('ZREM', P .. '_f', gid)
  redis.call('ZREM', P .. '_c', gid)
end
"""


class Script:
    """A script with the common part before it.

    Attributes:
        text: what is loaded.
        sha: what Redis knows it by.
    """

    def __init__(self, body: str) -> None:
        self.text = _LIMITS + _COMMON + body
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# ARGV: gid, owner, lease ms, record, status, due, ended, type, created, number of branches, the
# field of each, the rest of each.
CREATE = Script(
    """
local gid, owner, count = ARGV[2], ARGV[3], tonumber(ARGV[11])
local ended = tonumber(ARGV[8])
if redis.call('EXISTS', P .. '_s_' .. gid) == 1 then return 0 end
local lease_until = owner ~= '' and now + ARGV[4] or 0
local lease = {'fence', 1, 'owner', owner, 'until', lease_until, 'type', ARGV[9],
               'created', ARGV[10]}
local branches = {}
for i = 1, count do
  lease[#lease + 1] = ARGV[11 + i]
  lease[#lease + 1] = i - 1
  branches[i] = stamped(ARGV[11 + count + i])
end
redis.call('SET', P .. '_g_' .. gid, ARGV[5])
redis.call('SET', P .. '_s_' .. gid, ARGV[6])
for i = 1, #lease, 1000 do
  redis.call('HSET', P .. '_l_' .. gid, unpack(lease, i, math.min(i + 999, #lease)))
end
for i = 1, count, 1000 do
  redis.call('RPUSH', P .. '_b_' .. gid, unpack(branches, i, math.min(i + 999, count)))
end
redis.call('ZADD', P .. '_c', number(P .. '_c'), gid)
if ended then
  redis.call('ZADD', P .. '_f', ended, gid)
else
  schedule(gid, tonumber(ARGV[7]), lease_until)
end
return 1
"""
)

# ARGV: gid.
LOAD = Script(
    """
local gid = ARGV[2]
local record = redis.call('GET', P .. '_g_' .. gid)
if not record then return false end
local lease = redis.call('HMGET', P .. '_l_' .. gid, 'fence', 'owner', 'until')
return {record, lease[1], lease[2], lease[3], redis.call('LRANGE', P .. '_b_' .. gid, 0, -1)}
"""
)

# ARGV: gid, fence, owner, take, force, release, lease ms, record, status, due, ended, type,
# created, number of branches, the field of each, the rest of each. Gives the fence; 0 when refused.
SAVE = Script(
    """
local gid, fence, owner, count = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[15])
local take, force, release = ARGV[5] == '1', ARGV[6] == '1', ARGV[7] == '1'
local ended = tonumber(ARGV[12])
local status = redis.call('GET', P .. '_s_' .. gid)
if not status or terminal(status) then return 0 end
local lease = redis.call('HMGET', P .. '_l_' .. gid, 'fence', 'owner', 'until')
if tonumber(lease[1]) ~= fence then return 0 end
if lease[2] ~= owner and not (take and (force or tonumber(lease[3]) <= now)) then return 0 end
local places, branches = {}, {}
for i = 1, count do
  local place = redis.call('HGET', P .. '_l_' .. gid, ARGV[15 + i])
  places[i] = place
  branches[i] = stamped(ARGV[15 + count + i],
                        place and redis.call('LINDEX', P .. '_b_' .. gid, place))
end
if take then fence = fence + 1 end
local lease_until = 0
if release then owner = '' else lease_until = now + ARGV[8] end
redis.call('SET', P .. '_g_' .. gid, ARGV[9])
redis.call('SET', P .. '_s_' .. gid, ARGV[10])
redis.call('HSET', P .. '_l_' .. gid, 'fence', fence, 'owner', owner, 'until', lease_until,
           'type', ARGV[13], 'created', ARGV[14])
for i = 1, count do
  if places[i] then
    redis.call('LSET', P .. '_b_' .. gid, places[i], branches[i])
  else
    local length = redis.call('RPUSH', P .. '_b_' .. gid, branches[i])
    redis.call('HSET', P .. '_l_' .. gid, ARGV[15 + i], length - 1)
  end
end
if ended then
  schedule(gid)
  redis.call('ZADD', P .. '_f', ended, gid)
else
  schedule(gid, tonumber(ARGV[11]), lease_until)
end
return fence
"""
)

# ARGV: gid, number of branches, the field of each, the rest of each. Gives 1; 0 when the
# transaction is not prepared, -1 when a branch is there.
APPEND = Script(
    """
local gid, count = ARGV[2], tonumber(ARGV[3])
if redis.call('GET', P .. '_s_' .. gid) ~= 'prepared' then return 0 end
local seen = {}
for i = 1, count do
  local field = ARGV[3 + i]
  if seen[field] or redis.call('HEXISTS', P .. '_l_' .. gid, field) == 1 then return -1 end
  seen[field] = true
end
for i = 1, count do
  local length = redis.call('RPUSH', P .. '_b_' .. gid, stamped(ARGV[3 + count + i]))
  redis.call('HSET', P .. '_l_' .. gid, ARGV[3 + i], length - 1)
end
return 1
"""
)

# ARGV: owner, lease ms, limit. Gives gid, record, fence, lease's end and branches of each; the
# record is nil where an index names what is gone, which it does no longer.
CLAIM = Script(
    """
local owner, lease_until = ARGV[2], now + ARGV[3]
local limit = math.min(tonumber(ARGV[4]), MAX_ROWS)
local claimed, size = {}, 0
local found = redis.call('ZRANGEBYSCORE', P .. '_w', '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
local due = {}
for i = 1, #found, 2 do
  local number = tonumber(redis.call('ZSCORE', P .. '_c', found[i]) or 0)
  due[#due + 1] = {found[i], tonumber(found[i + 1]), number}
end
-- those of one instant in the order of creation
table.sort(due, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[3] < b[3]) end)
for _, row in ipairs(due) do
  local gid = row[1]
  local record = redis.call('GET', P .. '_g_' .. gid)
  if record then
    local branches = redis.call('LRANGE', P .. '_b_' .. gid, 0, -1)
    redis.call('HSET', P .. '_l_' .. gid, 'owner', owner, 'until', lease_until)
    local fence = redis.call('HINCRBY', P .. '_l_' .. gid, 'fence', 1)
    redis.call('ZADD', P .. '_w', lease_until, gid)
    claimed[#claimed + 1] = {gid, record, fence, lease_until, branches}
    size = size + #record
    for _, branch in ipairs(branches) do size = size + #branch end
    if size >= MAX_BYTES then break end
  else
    schedule(gid)
    claimed[#claimed + 1] = {gid, false}
  end
end
return claimed
"""
)

# ARGV: owner, lease ms, then gid and fence of each. Gives the gids that were lost.
RENEW = Script(
    """
local owner, lease_until = ARGV[2], now + ARGV[3]
local lost = {}
for i = 4, #ARGV, 2 do
  local gid = ARGV[i]
  local status = redis.call('GET', P .. '_s_' .. gid)
  local lease = redis.call('HMGET', P .. '_l_' .. gid, 'fence', 'owner')
  if not status or terminal(status) or lease[2] ~= owner
      or tonumber(lease[1]) ~= tonumber(ARGV[i + 1]) then
    lost[#lost + 1] = gid
  else
    redis.call('HSET', P .. '_l_' .. gid, 'until', lease_until)
    local due = redis.call('ZSCORE', P .. '_u', gid)
    if due then
      due = math.floor(due * 1000 + 0.5)
      redis.call('ZADD', P .. '_w', math.max(due, lease_until), gid)
    end
  end
end
return lost
"""
)

# ARGV: ended before, limit. Gives how many were deleted.
PURGE = Script(
    """
local limit = math.min(tonumber(ARGV[3]), MAX_ROWS)
local gids = redis.call('ZRANGEBYSCORE', P .. '_f', '-inf', '(' .. ARGV[2], 'LIMIT', 0, limit)
for _, gid in ipairs(gids) do remove(gid) end
return #gids
"""
)

# ARGV: ended before, limit. Gives their gids.
EXPIRED = Script(
    """
return redis.call('ZRANGEBYSCORE', P .. '_f', '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
"""
)

# ARGV: gids. Gives how many were deleted.
DELETE = Script(
    """
local deleted = 0
for i = 2, #ARGV do
  local gid = ARGV[i]
  if terminal(redis.call('GET', P .. '_s_' .. gid)) then
    remove(gid)
    deleted = deleted + 1
  end
end
return deleted
"""
)

# ARGV: number that the last page ended with, limit, status, type, created from, created until.
# Gives the rows and the number that this one ended with, empty when it is the last.
SCAN = Script(
    """
local before = ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
local limit, status, kind = math.min(tonumber(ARGV[3]), MAX_ROWS), ARGV[4], ARGV[5]
local from, until_ = tonumber(ARGV[6]), tonumber(ARGV[7])
local rows, size, last = {}, 0, ''
local found = redis.call('ZREVRANGEBYSCORE', P .. '_c', before, '-inf', 'WITHSCORES',
                         'LIMIT', 0, MAX_ROWS)
for i = 1, #found, 2 do
  local gid = found[i]
  local lease = redis.call('HMGET', P .. '_l_' .. gid, 'fence', 'owner', 'until', 'type', 'created')
  local created = tonumber(lease[5])
  if created and (kind == '' or kind == lease[4])
      and (not from or created >= from) and (not until_ or created <= until_)
      and (status == '' or status == redis.call('GET', P .. '_s_' .. gid)) then
    local record = redis.call('GET', P .. '_g_' .. gid)
    if record then
      rows[#rows + 1] = {record, lease[1], lease[2], lease[3]}
      size = size + #record
    end
  end
  if #rows == limit or size >= MAX_BYTES or i + 1 == 2 * MAX_ROWS then
    last = found[i + 1]
    break
  end
end
return {rows, last}
"""
)

# ARGV: gid. Gives whether it is stored.
RESET_ONE = Script(
    """
local gid = ARGV[2]
local status = redis.call('GET', P .. '_s_' .. gid)
if not status then return 0 end
if not terminal(status) then make_due(gid) end
return 1
"""
)

# ARGV: later than this instant, limit. Gives how many, and whether there are more.
RESET_ALL = Script(
    """
local limit = math.min(tonumber(ARGV[3]), MAX_ROWS)
local later = string.format('(%.17g', ARGV[2] / 1000)
local gids = redis.call('ZRANGEBYSCORE', P .. '_u', later, '+inf', 'LIMIT', 0, limit + 1)
for i = 1, math.min(#gids, limit) do make_due(gids[i]) end
return {math.min(#gids, limit), #gids > limit and 1 or 0}
"""
)

# ARGV: name, rest of the entry. Gives 0 when there is one.
CREATE_KV = Script(
    """
if redis.call('EXISTS', P .. '_kv_' .. ARGV[2]) == 1 then return 0 end
redis.call('SET', P .. '_kv_' .. ARGV[2], stamped(ARGV[3]))
redis.call('ZADD', P .. '_k', number(P .. '_k'), ARGV[2])
return 1
"""
)

# ARGV: name, version that was read, rest of the entry. Gives 0 when it is another or gone.
UPDATE_KV = Script(
    """
local entry = redis.call('GET', P .. '_kv_' .. ARGV[2])
if not entry or cjson.decode(entry).version ~= tonumber(ARGV[3]) then return 0 end
redis.call('SET', P .. '_kv_' .. ARGV[2], stamped(ARGV[4], entry))
return 1
"""
)

# ARGV: name. Gives how many were deleted.
DELETE_KV = Script(
    """
redis.call('ZREM', P .. '_k', ARGV[2])
return redis.call('UNLINK', P .. '_kv_' .. ARGV[2])
"""
)

# ARGV: number that the last page ended with, limit, start of the names. As SCAN.
SCAN_KV = Script(
    """
local before = ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
local limit, start = math.min(tonumber(ARGV[3]), MAX_ROWS), ARGV[4]
local rows, size, last = {}, 0, ''
local found = redis.call('ZREVRANGEBYSCORE', P .. '_k', before, '-inf', 'WITHSCORES',
                         'LIMIT', 0, MAX_ROWS)
for i = 1, #found, 2 do
  if string.sub(found[i], 1, #start) == start then
    local entry = redis.call('GET', P .. '_kv_' .. found[i])
    if entry then
      rows[#rows + 1] = entry
      size = size + #entry
    end
  end
  if #rows == limit or size >= MAX_BYTES or i + 1 == 2 * MAX_ROWS then
    last = found[i + 1]
    break
  end
end
return {rows, last}
"""
)

# Gives how many transactions and entries were deleted; to be asked again until there were none.
CLEAR = Script(
    """
local gids = redis.call('ZRANGE', P .. '_c', 0, MAX_ROWS - 1)
for _, gid in ipairs(gids) do
  schedule(gid)
  remove(gid)
end
local names = redis.call('ZRANGE', P .. '_k', 0, MAX_ROWS - 1)
for _, name in ipairs(names) do
  redis.call('UNLINK', P .. '_kv_' .. name)
  redis.call('ZREM', P .. '_k', name)
end
return #gids + #names
"""
)

ALL = (
    CREATE, LOAD, SAVE, APPEND, CLAIM, RENEW, PURGE, EXPIRED, DELETE, SCAN, RESET_ONE, RESET_ALL,
    CREATE_KV, UPDATE_KV, DELETE_KV, SCAN_KV, CLEAR,
)  # fmt: skip
"""Every script, to be loaded when a connection is made."""
