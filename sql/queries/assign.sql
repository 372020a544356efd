-- Assigns user and credits to a sale, or withdraws an assignment, once for each id.

select billing.assign(
    %(payment_id)s, %(user_id)s, %(credits)s, %(reason)s, %(by)s, %(id)s,
    %(withdraws)s, %(event_id)s, %(channel)s, %(allow_debt)s,
    %(most_credits)s
) as result
