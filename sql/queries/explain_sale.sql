-- Returns all that is known about the sale of a payment, from one snapshot. Lists are json, [] without entries.
-- facts has one entry for each source, version 0 for a purchase that was entered by hand.

with ids as materialized (
    select billing.linked_payments(array[%(payment_id)s::text]) as payment_ids
), sale as materialized (
    select (billing.sale_of(payment_ids)).*
    from ids
), facts as materialized (
    select
        payment_id, version, user_id, credits, money_amount, currency, paid, subscription_id, customer_id, recorded_at
    from billing.sales
    where payment_id = any ((select payment_ids from ids)::text[])
    union all
    select stripe_id, 0, user_id, amount, money_amount, currency, true, null, null, created_at
    from public.transactions
    where
        stripe_id = any ((select payment_ids from ids)::text[])
        and type = 'PURCHASE'
        and event_id is null
        and num_nulls(money_amount, currency) = 0
), parked as materialized (
    select
        event_id as id, event_type as type, reason, payment_id, user_reference, payer_email, parked_at, resolution,
        resolved_at, discarded_by, discard_reason
    from billing.parked_events
    where payment_id = any ((select payment_ids from ids)::text[]) and resolved_at is null
    union
    select
        event_id as id, event_type as type, reason, payment_id, user_reference, payer_email, parked_at, resolution,
        resolved_at, discarded_by, discard_reason
    from billing.parked_events
    where payment_id = any ((select payment_ids from ids)::text[]) and resolved_at is not null
), claims as materialized (
    select subject_id, user_id, level, customer_id, is_erased
    from billing.claims
    where
        subject_id = any (array(
            select unnest(array[subscription_id, customer_id])
            from facts
        ))
    union
    select subject_id, user_id, level, customer_id, is_erased
    from billing.claims
    where
        customer_id is not null
        and customer_id = any (array(
            select customer_id
            from facts
        ))
)

select
    ids.payment_ids,
    (
        select to_jsonb(sale)
        from sale
        where payment_id is not null
    ) as sale,
    (
        select billing.unsettled_reason(row(sale.*)::billing.merged_sale)
        from sale
        where payment_id is not null
    ) as unsettled_reason,
    (
        select coalesce(jsonb_agg(to_jsonb(facts) || jsonb_build_object(
            'user_exists', exists (select from public.users where id = facts.user_id)
        ) order by version desc, payment_id), '[]')
        from facts
    ) as facts,
    (
        select coalesce(jsonb_agg(jsonb_build_array(invoice_id, payment_id) order by invoice_id, payment_id), '[]')
        from billing.payment_links
        where invoice_id = any (ids.payment_ids) or payment_id = any (ids.payment_ids)
    ) as links,
    (
        select coalesce(jsonb_agg(to_jsonb(claims) || jsonb_build_object(
            'user_exists', exists (select from public.users where id = claims.user_id)
        ) order by level desc, subject_id, user_id), '[]')
        from claims
    ) as claims,
    (
        select coalesce(jsonb_agg(to_jsonb(reversals) order by recorded_at, reversal_id), '[]')
        from billing.reversals
        where payment_id = any (ids.payment_ids)
    ) as reversals,
    (
        select coalesce(jsonb_agg(to_jsonb(entries) order by created_at, amount desc, stripe_id), '[]')
        from billing.entries_of(ids.payment_ids) as entries
    ) as rows,
    (
        select coalesce(jsonb_agg(to_jsonb(parked) order by parked_at, id), '[]')
        from parked
    ) as parked,
    (
        select coalesce(jsonb_agg(to_jsonb(actions) order by number), '[]')
        from billing.operator_actions as actions
        where subject = any (ids.payment_ids || array(select id from parked))
    ) as actions,
    (
        select coalesce(jsonb_agg(to_jsonb(assignments) order by number desc), '[]')
        from billing.assignments
        where payment_id = any (ids.payment_ids)
    ) as assignments,
    (
        select bool_or(erased_at is not null)
        from billing.sales
        where payment_id = any (ids.payment_ids)
    ) as erased,
    now() as read_at
from ids
