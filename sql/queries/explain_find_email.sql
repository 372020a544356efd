-- Returns the users with an email address, in any case. Several accounts may have one.

select id::text as id
from public.users
where lower(email) = lower(%(email)s)
order by id
limit 100
