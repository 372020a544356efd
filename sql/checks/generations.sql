-- Generations that were given back twice or in part, and rows that give back something else. Run by webhook audit.

select
    'generation' as check,
    json_build_object('user_id', given.user_id, 'row', given.refunds) as subject,
    case
        when spent.type is distinct from 'GENERATION' then 'it gives back a row that is not a generation'
        when spent.user_id <> given.user_id then 'it was given back to another user'
        else 'it was not given back exactly once and in full'
    end as problem,
    to_json(case when spent.type = 'GENERATION' and spent.user_id = given.user_id then -spent.amount else 0 end) as expected,
    to_json(given.amount) as found
from (
    select
        refunds,
        user_id,
        sum(amount) as amount
    from public.transactions
    where refunds is not null
    group by
        refunds,
        user_id
) as given
left join public.transactions as spent on spent.id = given.refunds
where (spent.type, spent.user_id, -spent.amount) is distinct from ('GENERATION', given.user_id, given.amount)
