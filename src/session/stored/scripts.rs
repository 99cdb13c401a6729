//! What must happen in Redis as one. Each runs there without anything in between.

use ::redis::Script;
use std::sync::LazyLock;

/// A new record. KEYS: record, index of its user. ARGV: value, its life in ms, end of the session, now (both in Unix
/// seconds), most sessions of one user, life of the index in ms. 0: there is one already. Of too many, those that are over
/// soonest end: what is not in the index could not be logged out everywhere.
pub(super) static CREATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"if not redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') then return 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], KEYS[1])
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if over > 0 then
  local soonest = redis.call('ZPOPMIN', KEYS[2], over)
  for i = 1, #soonest, 2 do redis.call('DEL', soonest[i]) end
end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
return 1",
    )
});

/// Another value for a record, if it is there still and has not changed since. KEYS: record. ARGV: the last 16 bytes of the
/// old value, the new one. 0: it has gone. 2: somebody else has changed it.
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local value = redis.call('GET', KEYS[1])
if not value then return 0 end
if string.sub(value, -16) ~= ARGV[1] then return 2 end
redis.call('SET', KEYS[1], ARGV[2], 'XX', 'KEEPTTL')
return 1",
    )
});

/// The value of a record, which goes. KEYS: record. (GETDEL came with 6.2.)
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local value = redis.call('GET', KEYS[1])
if value then redis.call('DEL', KEYS[1]) end
return value",
    )
});

/// The names and values of some of a user's records, which go; an empty value where there was none any more. KEYS: index.
/// ARGV: the one to spare, or nothing; how many, less one.
pub(super) static TAKE_SOME: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local taken = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2])) do
  if name ~= ARGV[1] then
    taken[#taken + 1] = name
    taken[#taken + 1] = redis.call('GET', name) or ''
    redis.call('DEL', name)
    redis.call('ZREM', KEYS[1], name)
  end
end
return taken",
    )
});
