-- Holds that contradict the ledger, and holds of users who are gone. Run by webhook audit.

select
    'hold' as check,
    json_build_object('user_id', hold.user_id, 'row', hold.id) as subject,
    case
        when users.id is null then 'its user does not exist'
        when hold.captured_at is null then 'it was not captured, but a ledger row has its id'
        when entry.id is null then 'it was captured without a ledger row'
        when entry.type <> 'GENERATION' then 'the ledger row of its id is not a generation'
        when entry.user_id <> hold.user_id then 'the ledger row of its id is another user''s'
        else 'it was captured for more than it held'
    end as problem,
    case
        when users.id is null then to_json('a user'::text)
        when hold.captured_at is null then null
        when entry.id is null then to_json('a ledger row'::text)
        when entry.type <> 'GENERATION' then to_json('GENERATION'::text)
        when entry.user_id <> hold.user_id then to_json(hold.user_id)
        else to_json(-hold.amount)
    end as expected,
    case
        when users.id is null then null
        when hold.captured_at is null then to_json(entry.amount)
        when entry.id is null then null
        when entry.type <> 'GENERATION' then to_json(entry.type)
        when entry.user_id <> hold.user_id then to_json(entry.user_id)
        else to_json(entry.amount)
    end as found
from public.generation_holds as hold
left join public.users on users.id = hold.user_id
left join public.transactions as entry on entry.id = hold.id
where
    users.id is null
    or (hold.captured_at is null and entry.id is not null)
    or (
        hold.captured_at is not null
        and (entry.id is null or (entry.type, entry.user_id) <> ('GENERATION', hold.user_id) or entry.amount < -hold.amount)
    )
order by hold.id
