-- Adjustments without their ledger row, and rows of adjustments and assignments without their action. Run by webhook audit.
--
-- billing.erase_user() deletes rows and blanks the subject of their actions.

select
    'operator' as check,
    json_build_object('action', actions.number, 'user_id', coalesce(actions.subject, entries.user_id::text)) as subject,
    case
        when entries.id is null then 'the ledger row of an adjustment is missing'
        else 'the ledger row of an adjustment differs from its action'
    end as problem,
    to_json(actions.credits_given - actions.credits_taken) as expected,
    to_json(coalesce(entries.amount, 0)) as found
from billing.operator_actions as actions
left join public.transactions as entries on entries.id = actions.id
where
    actions.action = 'adjust'
    and actions.subject is not null
    and (entries.user_id::text, entries.amount, entries.type::text)
    is distinct from (actions.subject, actions.credits_given - actions.credits_taken, 'REFUND')
union all
select
    'operator',
    json_build_object('row', coalesce(stripe_id, id::text), 'user_id', user_id),
    'a ledger row that an operator caused, without an action',
    to_json(0),
    to_json(amount)
from public.transactions
where
    case
        when event_id like 'action:%' then not exists (
            select from billing.operator_actions
            where 'action:' || number = event_id and action in ('assign', 'withdraw')
        )
        when description is not null then not exists (
            select from billing.operator_actions
            where operator_actions.id = transactions.id
        )
    end
union all
select
    'operator',
    json_build_object('action', number, 'payment_id', payment_id),
    'an assignment without its action',
    to_json(0),
    to_json(credits)
from billing.assignments
where not exists (select from billing.operator_actions where operator_actions.number = assignments.number)
