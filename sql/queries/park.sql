-- Parks an event that cannot be settled. Returns whether it is open.

select billing.park(
    %(event_id)s, %(event_type)s, %(reason)s, %(payment_id)s, %(payload)s, %(user_reference)s, %(payer_email)s
) as is_open
