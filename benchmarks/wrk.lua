-- wrk's script: requests to N hosts of a pattern, drawn at random, and one line of JSON at the end.  Not in turn: Traffic Server
-- keeps an object in memory only if it was seen lately, by a small table in which hosts in turn push each other out for ever.
-- usage: wrk ... -s wrk.lua URL -- PATH HOSTS STRIDE [PAUSE_MS]    (host i is h<i*STRIDE>.bench.example)
-- With a pause, each connection rests so long between an answer and its next request.
local requests = {}

function init(args)
  math.randomseed(1)
  local path, hosts, stride = args[1], tonumber(args[2]), tonumber(args[3])
  local pause_ms = tonumber(args[4] or 0)
  if pause_ms > 0 then
    delay = function() return pause_ms end
  end
  for i = 1, hosts do
    requests[i] = wrk.format("GET", path, {["Host"] = string.format("h%d.bench.example", (i - 1) * stride)})
  end
end

function request()
  return requests[math.random(#requests)]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "duration_us": %d, "bad_status": %d, "socket_errors": %d, "p50_us": %d, "p99_us": %d, "max_us": %d}\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
