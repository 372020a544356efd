-- Returns the ids of unpaid sales and open disputes, which may change at Stripe long after their creation.

select billing.open_objects(%(since)s) as id
