"""`webhook audit`: check the ledger against its facts and against Stripe."""
