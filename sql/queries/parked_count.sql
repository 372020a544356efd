-- Counts the open parked events.

select count(*) as parked
from billing.parked_events
where resolved_at is null
