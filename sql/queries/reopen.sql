-- Puts a discarded event back on the list, if its payload is kept.

select billing.reopen(%(event_id)s, %(payer_email)s) as is_open
