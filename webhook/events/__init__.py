"""Stripe events to facts: pure functions, no I/O."""
