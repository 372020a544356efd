-- Returns the user of a UUID: the user's own id, or the id of a ledger row or of a hold, which is a generation's id.

select
    kind,
    user_id::text as user_id,
    payment_id
from (
    select
        'user' as kind,
        id as user_id,
        null as payment_id
    from public.users
    where id = %(id)s
    union all
    select
        lower(type::text),
        user_id,
        payment_id
    from public.transactions
    where id = %(id)s
    union all
    select
        'hold',
        user_id,
        null
    from public.generation_holds
    where id = %(id)s
) as owners
