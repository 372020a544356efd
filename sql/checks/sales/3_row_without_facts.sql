-- Ledger rows from Stripe whose sale has no facts.

select
    'row' as check,
    json_build_object('payment_id', sale, 'user_id', entries.user_id, 'row', name) as subject,
    'its payment_id names no known sale' as problem,
    to_json(0) as expected,
    to_json(amount) as found
from entries
left join sales using (sale)
where entries.sale is not null and sales.sale is null and (type <> 'PURCHASE' or event_id is not null)
