-- Purchases whose money and currency no fact reports. The fact of the time the row was written counts, too: a later fact
-- that changes no credits adds no row.

select
    'row' as check,
    json_build_object('payment_id', sale, 'user_id', suspects.user_id, 'row', stripe_id) as subject,
    'its money matches no fact' as problem,
    to_json(concat_ws(' ', sale_money, sale_currency)) as expected,
    to_json(concat_ws(' ', suspects.money_amount, suspects.currency)) as found
from suspects
left join billing.sales as fact on fact.payment_id = stripe_id
group by
    sale,
    suspects.user_id,
    stripe_id,
    suspects.money_amount,
    suspects.currency,
    sale_money,
    sale_currency
having
    bool_or(fact.money_amount = suspects.money_amount) is not true
    or bool_or(fact.currency = suspects.currency) is not true
