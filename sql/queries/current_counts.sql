-- Counts the open parked events, and the credits that operators gave and took.

select
    (
        select count(*)
        from billing.parked_events
        where resolved_at is null
    ) as parked,
    coalesce(sum(credits_given), 0)::bigint as credits_given,
    coalesce(sum(credits_taken), 0)::bigint as credits_taken
from billing.operator_actions
