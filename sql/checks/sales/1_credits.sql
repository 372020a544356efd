-- Sales whose ledger rows do not add up to what their facts say.

select
    'settlement' as check,
    json_build_object(
        'payment_id', payment_id,
        'user_id', wrong.user_id,
        'rows', coalesce(json_agg(entries.name order by entries.name) filter (where entries.name is not null), '[]')
    ) as subject,
    case
        when not paid then 'credits of a sale that is not paid'
        when not settled then 'credits of a sale without a user or credits'
        else 'credits do not match the facts'
    end as problem,
    to_json(wrong.expected) as expected,
    to_json(wrong.found) as found
from (
    select
        sale,
        user_id,
        coalesce(targets.amount, 0) as expected,
        coalesce(found.amount, 0) as found
    from found
    full join targets using (sale, user_id)
    where coalesce(found.amount, 0) <> coalesce(targets.amount, 0)
) as wrong
join sales using (sale)
left join entries on entries.sale = wrong.sale and entries.user_id = wrong.user_id
where not erased
group by
    payment_id,
    wrong.user_id,
    paid,
    settled,
    wrong.expected,
    wrong.found
