-- Discards parked events. Returns which of them are discarded now.

select billing.discard(%(event_ids)s, %(by)s, %(reason)s) as event_id
