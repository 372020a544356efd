-- Reversals in another currency than their sale: they took all its credits.

select
    'currency' as check,
    json_build_object('payment_id', payment_id, 'row', reversal_id) as subject,
    'a reversal in another currency than its sale took all its credits' as problem,
    to_json(sales.currency) as expected,
    to_json(reversals.currency) as found
from reversals
join sales using (sale)
where
    reversals.money_amount > 0
    and reversals.currency <> sales.currency
    and sales.money_amount > 0
    and settled
    and not erased
