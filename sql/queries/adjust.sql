-- Gives credits to a user or takes them, once for each id.

select
    number,
    balance,
    is_new
from billing.adjust(
    %(user_id)s, %(amount)s, %(reason)s, %(by)s, %(id)s, %(description)s, %(channel)s, %(allow_debt)s
)
