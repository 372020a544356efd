-- Discards parked events, all or none. Returns each with the number of its action, null if it was discarded earlier.

select
    event_id,
    number
from billing.discard(%(event_ids)s, %(by)s, %(reason)s, %(channel)s)
