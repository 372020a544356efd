-- Returns the latest assignment of a sale that is not withdrawn.

select
    number,
    user_id::text,
    credits
from billing.assignments
where payment_id = any (billing.linked_payments(array[%(payment_id)s])) and withdrawn_by is null
order by number desc
limit 1
