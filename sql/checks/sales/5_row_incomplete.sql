-- Ledger rows from Stripe that lack an id, the payment, money or currency.

select
    'row' as check,
    json_build_object('payment_id', sale, 'user_id', user_id, 'row', name) as subject,
    'a row from Stripe is incomplete' as problem,
    to_json('stripe_id, payment_id, money_amount and currency'::text) as expected,
    to_json('no ' || missing) as found
from entries
where (stripe_id is not null or event_id is not null) and missing <> ''
