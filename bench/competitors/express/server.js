// A typical webhook handler: Express, stripe-node's constructEvent, pg, and one idempotent insert for each event.
"use strict";

const express = require("express");
const { Pool } = require("pg");
const Stripe = require("stripe");

const stripe = new Stripe("sk_test_only_for_the_bench");
const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 16 });
const app = express();

const PURCHASE = `
  insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
  values ($1, $2, 'PURCHASE', $3, $3, $4, $5, $6)
  on conflict (stripe_id) do nothing`;
const REFUND = `
  insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
  select user_id, -amount * $3::bigint / money_amount, 'REFUND', $1, $2, -$3::bigint, $4, $5
  from public.transactions
  where stripe_id = $2
  on conflict (stripe_id) do nothing`;
const LINK = "insert into billing.payment_links (invoice_id, payment_id) values ($1, $2) on conflict do nothing";

function purchase(event, metadata, id, amount) {
  const { currency } = event.data.object;
  return pool.query(PURCHASE, [metadata.user_id, metadata.credits, id, amount, currency, event.id]);
}

function record(event) {
  const source = event.data.object;
  switch (event.type) {
    case "checkout.session.completed":
      return purchase(event, source.metadata, source.payment_intent, source.amount_total);
    case "invoice.paid":
      return purchase(event, source.parent.subscription_details.metadata, source.id, source.amount_paid);
    case "invoice_payment.paid":
      return pool.query(LINK, [source.invoice, source.payment.payment_intent]);
    case "refund.created":
      return pool.query(REFUND, [source.id, source.payment_intent, source.amount, source.currency, event.id]);
  }
}

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
  await record(event);
  return response.json({ received: true });
});

app.get("/healthz", (_, response) => response.json({ status: "ok" }));
app.listen(Number(process.env.PORT), "127.0.0.1");
