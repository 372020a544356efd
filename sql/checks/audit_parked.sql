-- The events that wait for an operator: how many for each reason, and for how long. Run by webhook audit.

select
    'parked',
    json_build_object('reason', reason, 'oldest', date_trunc('second', now() - min(parked_at))::text),
    'events wait, see webhook parked',
    to_json(0),
    to_json(count(*))
from billing.parked_events
where resolved_at is null
group by reason
order by reason
