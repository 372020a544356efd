-- Open parked events: how many for each reason, and since when. Run by webhook audit.

select
    'parked' as check,
    json_build_object('reason', reason, 'oldest', date_trunc('second', now() - min(parked_at))::text) as subject,
    'events are parked, see webhook parked' as problem,
    to_json(0) as expected,
    to_json(count(*)) as found
from billing.parked_events
where resolved_at is null
group by reason
order by reason
