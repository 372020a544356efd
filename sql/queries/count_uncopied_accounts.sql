-- Counts accounts without a row in public.users, and those with another email address there.

select
    missing,
    outdated
from billing.count_uncopied_accounts()
