-- Returns the payments of refunds and disputes whose sale is unknown.

select billing.reversals_without_sale(%(since)s) as payment_id
