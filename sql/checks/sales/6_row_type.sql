-- Ledger rows with another type than their cause.

select
    'row' as check,
    json_build_object('payment_id', sale, 'user_id', entries.user_id, 'row', name) as subject,
    'its type does not match its cause' as problem,
    to_json(kind) as expected,
    to_json(type) as found
from entries
join sales using (sale)
where (type = 'GENERATION' or (type::text <> kind and cause = sale and stripe_id is not null)) and not erased
