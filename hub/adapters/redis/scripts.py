"""What runs inside Redis, each as one indivisible step. Times are epoch seconds by the hub's clock, handed in."""

from __future__ import annotations

_BEGAN = """
local function began(key, now, margin)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local kept = redis.call('GET', key)
  if kept then
    local of_run, at = string.match(kept, '^(%w+) (%S+)$')
    if of_run == run then return tonumber(at) end
  end
  local at = now + margin
  redis.call('SET', key, run .. ' ' .. string.format('%.3f', at))
  return at
end
"""
"""The moment since which every used nonce is remembered. The mark goes with a flush; and it names the run of the
server, so that a restart counts as a beginning even where an older snapshot was loaded, and so does a failover."""

BEGIN = (
    _BEGAN
    + """
return string.format('%.3f', began(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])))
"""
)
"""KEYS: mark. ARGV: now, margin."""

FIRST_USE = (
    _BEGAN
    + """
local now, issued, ttl = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
if issued < began(KEYS[1], now, tonumber(ARGV[2])) then return -1 end
local until_ = redis.call('GET', KEYS[2])
if until_ and tonumber(until_) > now then return 0 end
redis.call('SET', KEYS[2], string.format('%.3f', now + ttl), 'PX', math.ceil((ttl + 60) * 1000))
return 1
"""
)
"""KEYS: mark, nonce. ARGV: now, margin, issued at, ttl. -1: too old to tell, 0: used before, 1: new."""

ALLOW = """
local now, answers = tonumber(ARGV[1]), {}
for place, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[place * 2]), tonumber(ARGV[place * 2 + 1])
  local number = math.floor(now / window)
  local passed = now - number * window
  local seen, uses, before = number, 0, 0
  local kept = redis.call('GET', key)
  if kept then
    local a, b, c = string.match(kept, '^(%d+) (%d+) (%d+)$')
    seen, uses, before = tonumber(a), tonumber(b), tonumber(c)
  end
  if seen == number + 1 then
    number, passed = seen, 0  -- another process's clock is a little ahead
  elseif seen ~= number then
    if seen == number - 1 then before = uses else before = 0 end
    uses = 0
  end
  local taken = uses + before * (1 - passed / window)
  local wait, left = 0, 0
  if taken + 1 > limit then
    if uses >= limit then
      wait = window - passed
    else
      wait = window * (taken + 1 - limit) / math.max(before, 1)
    end
    wait = math.max(wait, 0.001)
  else
    uses = uses + 1
    left = math.floor(limit - taken - 1)
  end
  redis.call('SET', key, string.format('%d %d %d', number, uses, before), 'PX', math.ceil(window * 2000) + 1000)
  answers[place] = string.format('%.6f %d %.3f', wait, left, window - passed)
end
return answers
"""
"""KEYS: limits. ARGV: now, then limit and window of each. The sliding window of the memory adapter. Answers, of each:
seconds to wait, uses left, seconds until the count begins anew."""
