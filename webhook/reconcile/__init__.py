"""`webhook reconcile`: compare the ledger with Stripe and record what is missing."""
