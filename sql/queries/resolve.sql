-- Marks a parked event as settled.

select billing.resolve(%(event_id)s)
