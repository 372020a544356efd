-- The sales as their facts describe them, and their ledger rows, for the findings in this folder. Run by webhook audit.
--
-- All files of this folder are one statement, so that a long ledger is read once: this file, and the others as its selects.
-- Written from the rule (docs/explanation/settlement.md) and for all sales at once, not with the functions that settle a
-- sale: an error of theirs has to show here. Erased sales are left out, and so are reversals whose sale is unknown.

with recursive links as materialized (
    select
        invoice_id,
        payment_id,
        count(*) over (partition by invoice_id) + count(*) over (partition by payment_id) = 2 as is_pair
    from billing.payment_links
),
-- Nearly all links are an invoice and its only payment. They need no search, which is held in memory.
edges (id, other) as (
    select invoice_id, payment_id
    from links
    where not is_pair
    union all
    select payment_id, invoice_id
    from links
    where not is_pair
),
reached (id, other) as (
    select id, id
    from edges
    union
    select reached.id, edges.other
    from reached
    join edges on edges.id = reached.other
),
-- Each linked id with the smallest id of its set, which names the sale.
linked (id, sale) as materialized (
    select id, min(other collate "C")
    from reached
    group by id
    union all
    select unnest(array[invoice_id, payment_id]), least(invoice_id collate "C", payment_id)
    from links
    where is_pair
),
-- What sources report. A purchase entered by hand (without an event) is a fact, too, and the weakest.
facts as (
    select
        payment_id,
        version + 1 as version,
        user_id,
        users.id is not null as is_known,
        credits,
        money_amount,
        currency,
        paid,
        subscription_id,
        customer_id,
        erased_at,
        forgotten_at,
        recorded_at
    from billing.sales
    left join public.users on users.id = user_id
    union all
    select stripe_id, 0, user_id, true, amount, money_amount, currency, true, null, null, null, null, created_at
    from public.transactions
    where type = 'PURCHASE' and event_id is null and num_nulls(stripe_id, money_amount, currency) = 0
),
-- Each id of a sale: each column from the highest version that names it. A user that exists comes first.
payments as (
    select
        coalesce(max(linked.sale), payment_id) collate "C" as sale,
        payment_id,
        max(version) as version,
        (max(array[is_known::text, version::text, user_id::text]) filter (where user_id is not null))[3]::uuid as user_id,
        (max(array[version, credits]) filter (where credits is not null))[2] as credits,
        (max(array[version, money_amount]) filter (where money_amount is not null))[2] as money_amount,
        (max(array[version::text, currency]) filter (where currency is not null))[2] as currency,
        bool_or(paid) as paid,
        bool_or(erased_at is not null) as erased,
        bool_or(forgotten_at is not null) as forgotten,
        max(recorded_at) as recorded_at
    from facts
    left join linked on linked.id = payment_id
    group by payment_id
),
-- The subscriptions and customers of sales.
subjects as materialized (
    select distinct
        coalesce(linked.sale, payment_id) collate "C" as sale,
        subscription_id,
        customer_id
    from billing.sales
    left join linked on linked.id = payment_id
    where num_nonnulls(subscription_id, customer_id) > 0
),
-- Claims count if their user exists or is gone.
claims as (
    select claims.*
    from billing.claims
    left join public.users on users.id = user_id
    where is_erased or users.id is not null
),
subscription_users as materialized (
    select distinct
        subject_id as subscription_id,
        user_id
    from (
        select
            subject_id,
            user_id,
            array[level, coalesce(case when level = 4 then extract(epoch from created) end, 0)] as strength,
            max(array[level, coalesce(case when level = 4 then extract(epoch from created) end, 0)])
                over (partition by subject_id) as greatest_strength
        from claims
        where level > 1
    ) as ranked
    where strength = greatest_strength
),
strong as materialized (
    select distinct
        customer_id,
        subscription_users.user_id
    from billing.claims
    join subscription_users on subscription_id = subject_id
    where customer_id is not null
),
customer_users as (
    select customer_id, user_id
    from strong
    union
    select claims.subject_id, claims.user_id
    from claims
    left join strong on strong.customer_id = claims.subject_id
    left join billing.claims as gift
        on gift.subject_id = claims.subject_id and gift.user_id = claims.user_id and gift.level = -1 and claims.level = 0
    where claims.level in (0, 1) and strong.customer_id is null and gift.subject_id is null
),
subscription_owners as materialized (
    select distinct sale, user_id
    from subjects
    join subscription_users using (subscription_id)
),
-- The only user whom the claims of a sale lead to. It counts if no source names a user.
owners as (
    select
        sale,
        case when count(distinct user_id) = 1 then min(user_id::text)::uuid end as owner_id
    from (
        select sale, user_id
        from subscription_owners
        union all
        select sale, customer_users.user_id
        from subjects
        join customer_users using (customer_id)
        left join subscription_owners using (sale)
        where subscription_owners.sale is null
    ) as claimants
    group by sale
),
-- Assignments of operators: for each column the latest number counts, before all facts.
assigned as materialized (
    select
        coalesce(linked.sale, payment_id) collate "C" as sale,
        (max(array[lpad(number::text, 20, '0'), user_id::text]) filter (where user_id is not null))[2]::uuid as assigned_user_id,
        (max(array[number, credits]) filter (where credits is not null))[2] as assigned_credits
    from billing.assignments
    left join linked on linked.id = payment_id
    where withdrawn_by is null
    group by 1
),
-- Each sale: of linked ids the complete one counts, then a paid one, then the one closest to the money, then the smallest.
sales as materialized (
    select distinct on (sale)
        sale,
        payment_id,
        users.id as user_id,
        num_nulls(named.id, credits) = 2 as is_nameless,
        credits,
        money_amount,
        currency,
        paid and num_nulls(users.id, credits) = 0 as settled,
        paid,
        recorded_at,
        bool_or(erased) over (partition by sale) as erased,
        bool_or(forgotten) over (partition by sale) and owner_id is not null as forgotten
    from (
        select
            sale,
            payment_id,
            version,
            coalesce(assigned_user_id, user_id) as user_id,
            coalesce(assigned_credits, credits) as credits,
            money_amount,
            currency,
            paid,
            erased,
            forgotten,
            recorded_at,
            bool_or(user_id is not null or assigned_user_id is not null) over (partition by sale) as is_named
        from payments
        left join assigned using (sale)
    ) as payments
    left join owners using (sale)
    left join public.users as named on named.id = payments.user_id
    left join public.users on users.id = case when is_named then payments.user_id else owner_id end
    order by
        sale,
        case when named.id is null and credits is null then 2 else num_nulls(payments.user_id, credits) end,
        paid desc,
        version desc,
        payment_id collate "C"
),
-- Sales of which an event is parked, or was until an operator discarded it.
parked as (
    select coalesce(linked.sale, payment_id) collate "C" as sale
    from billing.parked_events
    left join linked on linked.id = payment_id
    where payment_id is not null and resolution is distinct from 'settled'
),
reversals as materialized (
    select
        coalesce(linked.sale, payment_id) collate "C" as sale,
        reversal_id,
        money_amount,
        currency
    from billing.reversals
    left join linked on linked.id = payment_id
),
reversed as (
    select
        sale,
        sum(case when reversals.currency = sales.currency then reversals.money_amount else sales.money_amount end) as money
    from reversals
    join sales using (sale)
    where reversals.money_amount > 0
    group by sale
),
targets as (
    select
        sale,
        sales.user_id,
        credits - case
            when money_amount > 0 then div(credits::numeric * least(coalesce(money, 0), money_amount), money_amount)
            else 0
        end as amount
    from sales
    left join reversed using (sale)
    where settled
),
-- Ledger rows of sales: by the payment that they name, else by the refund, dispute or payment in their stripe_id. cause is
-- the sale of the fact in stripe_id, kind the type that its rows have.
entries as materialized (
    select
        coalesce(by_payment.sale, payment_id, reversals.sale, by_id.sale, cause_id) collate "C" as sale,
        coalesce(reversals.sale, by_id.sale, cause_id) collate "C" as cause,
        payment_id as named_payment_id,
        coalesce(stripe_id, rows.id::text) as name,
        split_part(stripe_id, ':', 2) like 'merge%' as merges,
        case when reversal_id is null and stripe_id = cause_id then 'PURCHASE' else 'REFUND' end as kind,
        user_id,
        amount,
        type,
        event_id,
        stripe_id,
        rows.money_amount,
        rows.currency,
        concat_ws(
            ', ',
            case when stripe_id is null then 'stripe_id' end,
            case when payment_id is null then 'payment_id' end,
            case when rows.money_amount is null then 'money_amount' end,
            case when rows.currency is null then 'currency' end
        ) as missing
    from (
        select
            *,
            split_part(stripe_id, ':', 1) as cause_id
        from public.transactions
        where num_nonnulls(stripe_id, payment_id, event_id) > 0
    ) as rows
    left join linked as by_payment on by_payment.id = payment_id
    left join linked as by_id on by_id.id = cause_id
    left join reversals on reversal_id = cause_id
),
-- Purchases whose money is not what counts for their sale. They are few: only they are compared with each fact.
suspects as materialized (
    select
        sale,
        entries.user_id,
        stripe_id,
        entries.money_amount,
        entries.currency,
        sales.money_amount as sale_money,
        sales.currency as sale_currency
    from entries
    join sales using (sale)
    where
        type = 'PURCHASE'
        and kind = 'PURCHASE'
        and event_id is not null
        and missing = ''
        and cause = sale
        and (entries.money_amount, entries.currency) is distinct from (sales.money_amount, sales.currency)
        and not erased
),
-- A purchase entered by hand with a mistyped payment_id counts for the payment in its stripe_id. It has a finding of its own.
found as (
    select
        case when type = 'PURCHASE' and event_id is null then coalesce(cause, sale) else sale end as sale,
        user_id,
        sum(amount) as amount
    from entries
    group by
        case when type = 'PURCHASE' and event_id is null then coalesce(cause, sale) else sale end,
        user_id
)
