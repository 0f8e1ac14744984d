-- A closed loop of wrk: bodies from files, one after the other, and the outcome as one line of JSON.
-- Arguments: the Content-Type, then the files.

local bodies, headers, number = {}, {}, 0

function init(args)
  headers["Content-Type"] = args[1]
  for position = 2, #args do
    local file = assert(io.open(args[position], "rb"))
    bodies[position - 1] = file:read("*a")
    file:close()
  end
end

function request()
  number = number + 1
  return wrk.format("POST", nil, headers, bodies[(number - 1) % #bodies + 1])
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "refused": %d, "broken": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)
  ))
end
