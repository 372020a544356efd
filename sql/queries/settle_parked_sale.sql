-- Settles a parked sale that has no event of its own. Returns why it cannot be settled, null if it is.

select billing.settle_parked_sale(%(payment_id)s) as reason
