"""What Redis does for us in one step: Lua scripts, each carried out as a whole, with nothing else in between.

Their effects reach the append-only file and the replicas as one transaction, so that a crash keeps all or none of them.
Redis looks at its memory when a script starts, and refuses the first command that would take more; so the first
command that each of them writes with is one that takes memory, and a full Redis refuses a script as a whole.

Numbers and positions are 8 bytes, the higher first, so that they are in order as bytes; Lua's own numbers, and Redis'
scores, would lose the last bits of large ones.
"""

from __future__ import annotations

from typing import Final

# Lua passes a few thousand values to a command at most. A script's commands are written to the file one by one, so few
# with many values are faster.
_SEVERAL: Final = """
local function several(command, key, values)
    for i = 1, #values, 4000 do
        redis.call(command, key, unpack(values, i, math.min(i + 3999, #values)))
    end
end
local function each_of(key, first, count)
    local found = {}
    for i = first, first + count - 1, 4000 do
        local some = redis.call('HMGET', key, unpack(ARGV, i, math.min(i + 3999, first + count - 1)))
        for n = 1, #some do found[#found + 1] = some[n] end
    end
    return found
end
"""

# How much there is in the three keys of jobs, as text. Each script that changes it leaves it in ``meta``, and COMMIT
# compares: so a key that somebody else has removed is noticed.
_SIZES: Final = """
local function sizes(jobs, order, workloads)
    local counts = {redis.call('HLEN', jobs), redis.call('ZCARD', order), redis.call('HLEN', workloads)}
    return table.concat(counts, ' ')
end
"""

# One batch. Returns 1; the owner if it is not us, nothing if there is none; 0 if commits that were seen, or jobs, are
# gone.
# keys: owner, meta, jobs, order, workloads, records, expires
# values: our token, the count of commits that was seen last, and the one to be; next number or nothing; how many are
# added, kept apart, changed, removed, records kept and records removed; the time before which records have expired, or
# nothing; then the numbers of all added, their bytes, number and workload of each kept apart, number and new beginning
# of each changed, the numbers of all removed, name, value with its expiry as bytes, and expiry of each record kept, and
# the names of those removed.
COMMIT: Final = (
    _SEVERAL
    + _SIZES
    + """
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then return owner or '' end
local commits = redis.call('HGET', KEYS[2], 'commits') or '0'
if commits ~= ARGV[2] and commits ~= ARGV[3] then return 0 end
local jobs, order, workloads = KEYS[3], KEYS[4], KEYS[5]
local before = sizes(jobs, order, workloads)
if redis.call('HGET', KEYS[2], 'sizes') ~= before then return 0 end
if commits ~= ARGV[3] then redis.call('HSET', KEYS[2], 'commits', ARGV[3]) end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'next_number', ARGV[4]) end
local at, count = 12, tonumber(ARGV[5])

local known = each_of(jobs, at, count)
local records, members = {}, {}
for i = 1, count do
    if known[i] then
        -- Written before; its place in the order may have been taken away.
        members[#members + 1] = '0'
        members[#members + 1] = string.sub(known[i], 1, 8) .. ARGV[at + i - 1]
    else
        local number, record = ARGV[at + i - 1], ARGV[at + count + i - 1]
        records[#records + 1] = number
        records[#records + 1] = record
        members[#members + 1] = '0'
        members[#members + 1] = string.sub(record, 1, 8) .. number
    end
end
several('HSET', jobs, records)
several('ZADD', order, members)
at = at + 2 * count

for _ = 1, ARGV[6] do
    redis.call('HSET', workloads, ARGV[at], ARGV[at + 1])
    at = at + 2
end

for _ = 1, ARGV[7] do
    local number, start = ARGV[at], ARGV[at + 1]
    at = at + 2
    local record = redis.call('HGET', jobs, number)
    if record then
        local former, position = string.sub(record, 1, 8), string.sub(start, 1, 8)
        redis.call('HSET', jobs, number, start .. string.sub(record, #start + 1))
        if former ~= position then
            redis.call('ZADD', order, 0, position .. number)
            redis.call('ZREM', order, former .. number)
        end
    end
end

count = tonumber(ARGV[8])
known = each_of(jobs, at, count)
local gone, positions = {}, {}
for i = 1, count do
    if known[i] then
        local number = ARGV[at + i - 1]
        gone[#gone + 1] = number
        positions[#positions + 1] = string.sub(known[i], 1, 8) .. number
    end
end
several('HDEL', jobs, gone)
several('HDEL', workloads, gone)
several('ZREM', order, positions)
at = at + count

local kept, expires = KEYS[6], KEYS[7]
for _ = 1, ARGV[9] do
    redis.call('HSET', kept, ARGV[at], ARGV[at + 1])
    if ARGV[at + 2] == '' then
        redis.call('ZREM', expires, ARGV[at])
    else
        redis.call('ZADD', expires, ARGV[at + 2], ARGV[at])
    end
    at = at + 3
end
for _ = 1, ARGV[10] do
    redis.call('HDEL', kept, ARGV[at])
    redis.call('ZREM', expires, ARGV[at])
    at = at + 1
end
if ARGV[11] ~= '' then
    local expired = redis.call('ZRANGEBYSCORE', expires, '-inf', ARGV[11], 'LIMIT', 0, 10000)
    several('HDEL', kept, expired)
    several('ZREM', expires, expired)
end
local after = sizes(jobs, order, workloads)
if after ~= before then redis.call('HSET', KEYS[2], 'sizes', after) end
return 1
"""
)

# Have what is there of jobs be what there must be. Returns as COMMIT does.
# keys: owner, meta, jobs, order, workloads; values: our token
ACCEPT: Final = (
    _SIZES
    + """
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then return owner or '' end
redis.call('HSET', KEYS[2], 'sizes', sizes(KEYS[3], KEYS[4], KEYS[5]))
return 1
"""
)

# Take the place. Returns 1, or the lease if it is held and is not the one known to be left by a dead process.
# keys: owner, lease, meta; values: our token, our lease, milliseconds, the dead one's lease
TAKE: Final = """
local lease = redis.call('GET', KEYS[2])
if lease and lease ~= ARGV[4] then return lease end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('HSETNX', KEYS[3], 'version', '1')
return 1
"""

# Renew the lease, unless the place is another's by now; keys and values as for TAKE. Returns 1 or the owner.
RENEW: Final = """
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then return owner or '' end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
"""

# Let go. keys: owner, lease; values: our token
RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""

# Move a job to where ``load`` does not look. Returns as COMMIT does.
# keys: owner, jobs, order, workloads, set_aside, meta; values: our token, number, its decimal digits, reason, the job's
# position if it is not the record's
QUARANTINE: Final = (
    _SIZES
    + """
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then return owner or '' end
local before = sizes(KEYS[2], KEYS[3], KEYS[4])
local number, name = ARGV[2], ARGV[3]
local record = redis.call('HGET', KEYS[2], number)
local workload = redis.call('HGET', KEYS[4], number)
if record or workload then redis.call('HSET', KEYS[5], name .. ' reason', ARGV[4]) end
if record then redis.call('HSET', KEYS[5], name .. ' record', record) end
if workload then redis.call('HSET', KEYS[5], name .. ' workload', workload) end
local position = ARGV[5]
if position == '' and record then position = string.sub(record, 1, 8) end
redis.call('ZREM', KEYS[3], position .. number)
redis.call('HDEL', KEYS[2], number)
redis.call('HDEL', KEYS[4], number)
if redis.call('HGET', KEYS[6], 'sizes') == before then
    redis.call('HSET', KEYS[6], 'sizes', sizes(KEYS[2], KEYS[3], KEYS[4]))
end
return 1
"""
)
