-- Ledger rows whose stripe_id names a fact of another sale, apart from merges.

select
    'row' as check,
    json_build_object('payment_id', payment_id, 'user_id', entries.user_id, 'row', name) as subject,
    'its cause is not a fact of its sale' as problem,
    to_json(payment_id) as expected,
    to_json(cause) as found
from entries
join sales using (sale)
where cause <> sale and not merges and not erased
