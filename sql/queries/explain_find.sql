-- Returns where an id of Stripe occurs, at most 100 of each: payments whose sale it belongs to, users, and parked events
-- that name it, the open ones and those that were discarded in the last 30 days.

select
    array(
        select payment_id
        from (
            select payment_id
            from billing.sales
            where payment_id = %(id)s
            union
            select invoice_id
            from billing.payment_links
            where invoice_id = %(id)s
            union
            select payment_id
            from billing.payment_links
            where payment_id = %(id)s
            union
            select payment_id
            from billing.reversals
            where reversal_id = %(id)s
            union
            select payment_id
            from billing.reversals
            where payment_id = %(id)s
            union
            select coalesce(payment_id, stripe_id)
            from public.transactions
            where stripe_id = %(id)s
            union
            select payment_id
            from public.transactions
            where payment_id = %(id)s
            union
            (
                select payment_id
                from billing.sales
                where subscription_id = %(id)s
                limit 100
            )
            union
            (
                select payment_id
                from billing.sales
                where customer_id = %(id)s
                limit 100
            )
        ) as known
        order by payment_id
        limit 100
    ) as payment_ids,
    array(
        select id::text
        from public.users
        where
            id = any (array(
                select user_id
                from billing.claims
                where subject_id = %(id)s
                union
                select user_id
                from billing.claims
                where customer_id = %(id)s
                limit 100
            ))
        order by id
        limit 100
    ) as user_ids,
    array(
        select event_id
        from billing.parked_events
        where event_id = %(id)s
        union
        (
            select event_id
            from billing.parked_events
            where payment_id = %(id)s and resolved_at is null
            limit 100
        )
        union
        (
            select event_id
            from billing.parked_events
            where payment_id = %(id)s and resolved_at is not null
            limit 100
        )
        union
        (
            select event_id
            from billing.parked_events
            where payload is not null and billing.ids_named_in(payload) @> array[%(id)s::text]
            limit 100
        )
    ) as event_ids
