"""HTTP requests to Stripe's API."""
