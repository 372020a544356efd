-- Sales whose ledger rows do not add up to what their facts say.

select
    'settlement' as check,
    json_build_object('payment_id', payment_id, 'user_id', coalesce(found.user_id, targets.user_id)) as subject,
    case
        when not paid then 'credits of a sale that is not paid'
        when not settled then 'credits of a sale without a user or credits'
        else 'credits do not match the facts'
    end as problem,
    to_json(coalesce(targets.amount, 0)) as expected,
    to_json(coalesce(found.amount, 0)) as found
from found
full join targets using (sale, user_id)
join sales using (sale)
where coalesce(found.amount, 0) <> coalesce(targets.amount, 0) and not erased
