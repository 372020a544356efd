-- A script for wrk: sends each signed body of a file once, and prints the counts and times as one line of JSON.
--
-- Usage: wrk … -s deliver.lua URL -- FILE. Each record of the file is a line with the length of the body and the
-- Stripe-Signature header, and the body. Use one thread (-t 1): each thread would read the file from its start.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  file = assert(io.open(args[1], "rb"))
  headers = { ["Content-Type"] = "application/json; charset=utf-8" }
  sent = 0
  ran_out = 0
end

function request()
  local head = file:read("*l")
  if not head then
    ran_out = 1
    wrk.thread:stop()
    return last
  end
  local length, signature = head:match("(%d+) (.+)")
  headers["Stripe-Signature"] = signature
  last = wrk.format("POST", "/webhook", headers, file:read(tonumber(length)))
  sent = sent + 1
  return last
end

function done(summary, latency, requests)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  print(string.format(
    '{"sent": %d, "answered": %d, "rejected": %d, "broken": %d, "ran_out": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f}',
    threads[1]:get("sent"), summary.requests, errors.status, broken, threads[1]:get("ran_out"),
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  ))
end
