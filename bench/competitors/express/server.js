// A typical webhook handler: Express, stripe-node's constructEvent, pg, and one idempotent insert.
"use strict";

const express = require("express");
const { Pool } = require("pg");
const Stripe = require("stripe");

const stripe = new Stripe("sk_test_only_for_the_bench");
const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 16 });
const app = express();

const INSERT = `
  insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
  values ($1, $2, 'PURCHASE', $3, $3, $4, $5, $6)
  on conflict (stripe_id) do nothing`;

app.post("/webhook", express.raw({ type: "application/json", limit: "1mb" }), async (request, response) => {
  let event;
  try {
    event = stripe.webhooks.constructEvent(
      request.body,
      request.headers["stripe-signature"],
      process.env.STRIPE_WEBHOOK_SECRET,
    );
  } catch (error) {
    return response.status(400).send(`Webhook Error: ${error.message}`);
  }
  if (event.type === "checkout.session.completed") {
    const session = event.data.object;
    await pool.query(INSERT, [
      session.metadata.user_id,
      session.metadata.credits,
      session.payment_intent,
      session.amount_total,
      session.currency,
      event.id,
    ]);
  }
  return response.json({ received: true });
});

app.get("/healthz", (_, response) => response.json({ status: "ok" }));
app.listen(Number(process.env.PORT), "127.0.0.1");
