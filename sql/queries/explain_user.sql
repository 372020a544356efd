-- Returns a user with the balance, open holds, parked events and unpaid sales of the user, and the latest actions on it.
-- Lists are json, [] without entries, and have at most 100 entries, the newest first.

select
    users.id::text as id,
    users.email,
    users.credits_balance as balance,
    billing.available_credits(users.id) as available,
    users.created_at,
    (
        select coalesce(jsonb_agg(to_jsonb(holds) order by holds.created_at desc), '[]')
        from (
            select id, amount, expires_at, captured_at, released_at, created_at
            from public.generation_holds
            where
                user_id = users.id
                and captured_at is null
                and released_at is null
                and expires_at > clock_timestamp()
            order by expires_at desc
            limit 100
        ) as holds
    ) as holds,
    (
        select coalesce(jsonb_agg(to_jsonb(parked) order by parked.parked_at desc), '[]')
        from (
            select
                event_id as id, event_type as type, reason, payment_id, user_reference, payer_email, parked_at,
                resolution, resolved_at, discarded_by, discard_reason
            from billing.parked_events
            where lower(user_reference) = users.id::text and payload is not null
            order by parked_at desc
            limit 100
        ) as parked
    ) as parked,
    (
        select coalesce(jsonb_agg(to_jsonb(unpaid) order by unpaid.recorded_at desc), '[]')
        from (
            select payment_id, credits, money_amount, currency, recorded_at
            from billing.sales
            where user_id = users.id and not paid
            order by recorded_at desc
            limit 100
        ) as unpaid
    ) as unpaid,
    (
        select coalesce(jsonb_agg(to_jsonb(actions) order by actions.number desc), '[]')
        from (
            select *
            from billing.operator_actions
            where subject = users.id::text
            order by number desc
            limit 100
        ) as actions
    ) as actions,
    now() as read_at
from public.users
where users.id = %(user_id)s
