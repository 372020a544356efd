// Sends each signed body of a file once, at a steady rate, and prints the counts and times as JSON.
//
// Usage: node steady.js URL FILE RATE SECONDS CONNECTIONS. The file is the one that deliver.lua reads.
// A response time counts from the moment when the delivery was due, so it includes the wait behind a slow answer.
"use strict";

const fs = require("node:fs");
const http = require("node:http");

const [url, name, ...numbers] = process.argv.slice(2);
const [rate, seconds, connections] = numbers.map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
const records = fs.readFileSync(name);
const count = rate * seconds;
const times = [];
const result = { sent: 0, answered: 0, rejected: 0, broken: 0, ran_out: 0 };
let position = 0;
let started;

function send(due) {
  const end = records.indexOf("\n", position);
  const [length, signature] = records.toString("latin1", position, end).split(" ");
  position = end + 1 + Number(length);
  const body = records.subarray(end + 1, position);
  const headers = {
    "Content-Type": "application/json; charset=utf-8",
    "Content-Length": length,
    "Stripe-Signature": signature,
  };
  result.sent += 1;
  const request = http.request(`${url}/webhook`, { method: "POST", agent, headers }, (response) => {
    response.resume();
    response.on("end", () => {
      times.push(performance.now() - due);
      count_answer(response.statusCode === 200 ? "answered" : "rejected");
    });
  });
  request.on("error", () => count_answer("broken"));
  request.end(body);
}

function count_answer(kind) {
  result[kind] += 1;
  if (result.answered + result.rejected + result.broken === count) finish();
}

function finish() {
  times.sort((one, other) => one - other);
  const percentile = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
  const took = (performance.now() - started) / 1000;
  console.log(JSON.stringify({ ...result, seconds: took, p50: percentile(0.5), p99: percentile(0.99) }));
  agent.destroy();
}

function send_due() {
  while (result.sent < count) {
    const due = started + (result.sent * 1000) / rate;
    const early = due - performance.now();
    if (early > 0) {
      setTimeout(send_due, early);
      return;
    }
    send(due);
  }
}

started = performance.now();
send_due();
