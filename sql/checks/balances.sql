-- Users whose balance is not the sum of their ledger rows. Run by webhook audit.

select
    'balance' as check,
    json_build_object('user_id', coalesce(users.id, sums.user_id)) as subject,
    case
        when users.id is null then 'ledger rows of a user that does not exist'
        else 'balance is not the sum of its ledger rows'
    end as problem,
    to_json(coalesce(sums.amount, 0)) as expected,
    to_json(users.credits_balance) as found
from public.users
full join (
    select
        user_id,
        sum(amount) as amount
    from public.transactions
    group by user_id
) as sums on sums.user_id = users.id
where users.credits_balance is distinct from coalesce(sums.amount, 0)
