-- Paid sales that cannot be settled, without a parked event. Facts that name neither credits nor an existing user are about
-- something else, until a session reports credits. Sales of the last five minutes may be about to be parked.

select
    'settlement' as check,
    json_build_object('payment_id', payment_id) as subject,
    'a paid sale is not settled, and no event of it is parked' as problem,
    to_json('a ledger row or a parked event'::text) as expected,
    null as found
from sales
where
    paid
    and not settled
    and not erased
    and not forgotten
    and not is_nameless
    and recorded_at < now() - interval '5 minutes'
    and not exists (select from parked where parked.sale = sales.sale)
