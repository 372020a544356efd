-- Generations that were not given back once and whole, and rows that give back something else. Run by webhook audit.

select
    'generation',
    json_build_object('user_id', given.user_id, 'row', given.refunds),
    case
        when spent.type is distinct from 'GENERATION' then 'what was given back is no generation'
        when spent.user_id <> given.user_id then 'it was given back to somebody else'
        else 'it was not given back once and whole'
    end,
    to_json(case when spent.type = 'GENERATION' and spent.user_id = given.user_id then -spent.amount else 0 end),
    to_json(given.amount)
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
