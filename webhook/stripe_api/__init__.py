"""HTTP requests to Stripe's API: lookups of the worker, bulk reads of the commands, and webhook endpoints."""
