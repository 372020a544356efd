"""A Stripe webhook worker that turns money into credits."""

__version__ = "0.1.0"
