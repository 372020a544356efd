-- Users whose balance is not the sum of their ledger rows. Run by webhook audit.

select
    'balance',
    json_build_object('user_id', coalesce(users.id, sums.user_id)),
    case when users.id is null then 'rows of a user that is not there' else 'balance is not the sum of its rows' end,
    to_json(coalesce(sums.amount, 0)),
    to_json(users.credits_balance)
from public.users
full join (
    select
        user_id,
        sum(amount) as amount
    from public.transactions
    group by user_id
) as sums on sums.user_id = users.id
where users.credits_balance is distinct from coalesce(sums.amount, 0)
