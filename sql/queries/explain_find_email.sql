-- Returns the users with an email address, and the open parked events whose payer has it, in any case, at most 100 of
-- each. Several accounts may have one address.

select
    array(
        select id::text
        from public.users
        where lower(email) = lower(%(email)s)
        order by id
        limit 100
    ) as user_ids,
    array(
        select event_id
        from billing.parked_events
        where lower(payer_email) = lower(%(email)s) and resolved_at is null
        order by parked_at
        limit 100
    ) as event_ids
