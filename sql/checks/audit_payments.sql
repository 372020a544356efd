-- Sales whose ledger rows are not what their facts say, and rows that fit no facts. Run by webhook audit.
--
-- Written from the rule (docs/settlement.md) and for all sales at once, not with the functions that settle one: an
-- error of theirs has to show here. Erased sales are left out, and so are reversals whose sale is not known.

with recursive links as materialized (
    select
        invoice_id,
        payment_id,
        count(*) over (partition by invoice_id) + count(*) over (partition by payment_id) = 2 as is_pair
    from billing.payment_links
),
-- Nearly all links are an invoice and its one payment: they are spared the search, which is held in memory.
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
-- Each linked id, and the smallest of its set, which stands for the sale.
linked (id, sale) as materialized (
    select id, min(other collate "C")
    from reached
    group by id
    union all
    select unnest(array[invoice_id, payment_id]), least(invoice_id collate "C", payment_id)
    from links
    where is_pair
),
-- What sources say. A purchase that somebody entered by hand (without an event) is one, too, and the weakest.
facts as (
    select payment_id, version + 1 as version, user_id, credits, money_amount, currency, paid, erased_at, recorded_at
    from billing.sales
    union all
    select stripe_id, 0, user_id, amount, money_amount, currency, true, null, created_at
    from public.transactions
    where type = 'PURCHASE' and event_id is null and num_nulls(stripe_id, money_amount, currency) = 0
),
-- Each id of a sale: of each column the highest version that names it.
payments as (
    select
        coalesce(max(linked.sale), payment_id) collate "C" as sale,
        payment_id,
        max(version) as version,
        (max(array[version::text, user_id::text]) filter (where user_id is not null))[2]::uuid as user_id,
        (max(array[version, credits]) filter (where credits is not null))[2] as credits,
        (max(array[version, money_amount]) filter (where money_amount is not null))[2] as money_amount,
        (max(array[version::text, currency]) filter (where currency is not null))[2] as currency,
        bool_or(paid) as paid,
        bool_or(erased_at is not null) as erased,
        max(recorded_at) as recorded_at
    from facts
    left join linked on linked.id = payment_id
    group by payment_id
),
-- Each sale: of linked ids the complete one counts, then the one that is paid, the one closest to the money, the
-- smallest.
sales as materialized (
    select distinct on (sale)
        sale,
        payment_id,
        users.id as user_id,
        num_nulls(payments.user_id, credits) = 2 as is_nameless,
        credits,
        money_amount,
        currency,
        paid and num_nulls(users.id, credits) = 0 as settled,
        paid,
        recorded_at,
        bool_or(erased) over (partition by sale) as erased
    from payments
    left join public.users on users.id = payments.user_id
    order by
        sale,
        num_nulls(payments.user_id, credits),
        paid desc,
        version desc,
        payment_id collate "C"
),
-- Sales of which an event waits for an operator, or did until one discarded it.
waiting as (
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
-- Ledger rows of sales: by the payment that they name, else by the refund, dispute or payment that their stripe_id is.
-- cause is the sale that the fact named in stripe_id is of, kind the type that a row of it has.
entries as materialized (
    select
        coalesce(by_payment.sale, payment_id, reversals.sale, by_id.sale, cause_id) collate "C" as sale,
        coalesce(reversals.sale, by_id.sale, cause_id) collate "C" as cause,
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
        ) as lacks
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
-- Purchases whose money is not what counts for their sale. Few: they alone are compared with each fact.
suspects as materialized (
    select
        sale,
        entries.user_id,
        stripe_id,
        entries.money_amount,
        entries.currency,
        sales.money_amount as told_money,
        sales.currency as told_currency
    from entries
    join sales using (sale)
    where
        type = 'PURCHASE'
        and kind = 'PURCHASE'
        and event_id is not null
        and lacks = ''
        and cause = sale
        and (entries.money_amount, entries.currency) is distinct from (sales.money_amount, sales.currency)
        and not erased
),
found as (
    select
        sale,
        user_id,
        sum(amount) as amount
    from entries
    group by
        sale,
        user_id
)

select
    'settlement',
    json_build_object('payment_id', payment_id, 'user_id', coalesce(found.user_id, targets.user_id)),
    case
        when not paid then 'credits of a sale that is not paid'
        when not settled then 'credits of a sale without a user or credits'
        else 'credits are not what its facts say'
    end,
    to_json(coalesce(targets.amount, 0)),
    to_json(coalesce(found.amount, 0))
from found
full join targets using (sale, user_id)
join sales using (sale)
where coalesce(found.amount, 0) <> coalesce(targets.amount, 0) and not erased

union all

select
    'currency',
    json_build_object('payment_id', payment_id, 'row', reversal_id),
    'a reversal in another currency than its sale took all its credits',
    to_json(sales.currency),
    to_json(reversals.currency)
from reversals
join sales using (sale)
where
    reversals.money_amount > 0
    and reversals.currency <> sales.currency
    and sales.money_amount > 0
    and settled
    and not erased

union all

select
    'row',
    json_build_object('payment_id', sale, 'user_id', entries.user_id, 'row', name),
    'no facts of its sale are known',
    to_json(0),
    to_json(amount)
from entries
left join sales using (sale)
where entries.sale is not null and sales.sale is null and (type <> 'PURCHASE' or event_id is not null)

union all

select
    'row',
    json_build_object('payment_id', payment_id, 'user_id', entries.user_id, 'row', name),
    'what caused it is no fact of its sale',
    to_json(payment_id),
    to_json(cause)
from entries
join sales using (sale)
where cause <> sale and not merges and not erased

union all

select
    'row',
    json_build_object('payment_id', sale, 'user_id', user_id, 'row', name),
    'a row of Stripe''s is not whole',
    to_json('stripe_id, payment_id, money_amount and currency'::text),
    to_json('no ' || lacks)
from entries
where (stripe_id is not null or event_id is not null) and lacks <> ''

union all

select
    'row',
    json_build_object('payment_id', sale, 'user_id', entries.user_id, 'row', name),
    'its type is not that of what caused it',
    to_json(kind),
    to_json(type)
from entries
join sales using (sale)
where (type = 'GENERATION' or (type::text <> kind and cause = sale and stripe_id is not null)) and not erased

union all

-- As one of its facts said when it was written: what a closer one said later is no reason for a row where no credits change.
select
    'row',
    json_build_object('payment_id', sale, 'user_id', suspects.user_id, 'row', stripe_id),
    'its money is none that its facts say',
    to_json(concat_ws(' ', told_money, told_currency)),
    to_json(concat_ws(' ', suspects.money_amount, suspects.currency))
from suspects
left join billing.sales as told on told.payment_id = stripe_id
group by
    sale,
    suspects.user_id,
    stripe_id,
    suspects.money_amount,
    suspects.currency,
    told_money,
    told_currency
having
    bool_or(told.money_amount = suspects.money_amount) is not true
    or bool_or(told.currency = suspects.currency) is not true

union all

-- Facts that name neither user nor credits are of a payment that is none of ours, until its session says otherwise. Between
-- recording a sale and parking its event lies a moment.
select
    'settlement',
    json_build_object('payment_id', payment_id),
    'a paid sale that was not settled, and of which no event waits',
    to_json('a ledger row or a parked event'::text),
    null
from sales
where
    paid
    and not settled
    and not erased
    and not is_nameless
    and recorded_at < now() - interval '5 minutes'
    and not exists (select from entries where entries.sale = sales.sale)
    and not exists (select from waiting where waiting.sale = sales.sale)
