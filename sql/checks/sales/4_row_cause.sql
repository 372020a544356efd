-- Ledger rows whose stripe_id and payment_id name two sales, apart from merges. Of a purchase entered by hand one of the two
-- is mistyped.

select
    'row' as check,
    json_build_object('payment_id', named_payment_id, 'user_id', entries.user_id, 'row', name) as subject,
    case
        when caused.sale is null and cause = split_part(stripe_id, ':', 1) and type = 'REFUND'
            then 'its stripe_id names no known refund or dispute'
        else 'its payment_id and its stripe_id name two sales'
    end as problem,
    to_json(named_payment_id) as expected,
    to_json(cause) as found
from entries
left join sales using (sale)
left join sales as caused on caused.sale = cause
where
    cause <> entries.sale
    and not merges
    and named_payment_id is not null
    and sales.erased is not true
    and (sales.sale is not null or (type = 'PURCHASE' and event_id is null))
