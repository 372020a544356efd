"""The ledger that the console's pages are measured on: a year of sales, generations, refunds and parked events."""

from __future__ import annotations

from bench.database import Database
from bench.deliveries import SESSION, USER_ID

ROWS = 1_000_000
USERS = 100_000
BUSY = "00000000-0000-4000-9000-000000000001"
"""The user with a tenth of all rows."""
BUSY_ROWS = ROWS // 10
QUIET = "00000000-0000-4000-9000-000000000002"
QUIET_ROWS = 100
PARKED = 1000
SALE = "pi_console000500003"
"""A sale of another user, with a refund."""
PARKED_EVENT = "evt_console000000500"


def fill(database: Database) -> None:
    """Insert users, ledger rows, the facts behind them, and parked events."""
    with database.loading("public.users", "public.transactions") as connection:
        connection.execute(_ADD_USERS, {"users": USERS})
        connection.execute(_ADD_ROWS, {"rows": ROWS})
    with database.loading("billing.sales", "billing.reversals") as connection:
        connection.execute(_ADD_FACTS)
        connection.execute(_ADD_BALANCES)
        payload = SESSION.replace(USER_ID, b"99999999-0000-4000-8000-000000000000").decode()
        connection.execute(_PARK, {"parked": PARKED, "payload": payload})


_ADD_USERS = """
insert into public.users (id, email)
select
    ('00000000-0000-4000-9000-' || lpad(number::text, 12, '0'))::uuid,
    'user' || number || '@example.com'
from generate_series(1, %(users)s) as number
"""

# Blocks of 200 numbers: the last digit and the block choose the user, the digits between choose one of 20 kinds of row.
# A number that ends with 0 belongs to the busy user. A refund follows its sale by 190.
_ADD_ROWS = """
insert into public.transactions
    (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id, created_at)
select
    ('00000000-0000-4000-9000-' || lpad(user_number::text, 12, '0'))::uuid,
    case when kind < 8 then 100 when kind < 19 then -10 else -50 end,
    case when kind < 8 then 'PURCHASE' when kind < 19 then 'GENERATION' else 'REFUND' end::public.transaction_type,
    case when kind < 8 then 'pi_console' when kind = 19 then 're_console' end || lpad(number::text, 9, '0'),
    case when kind < 8 then 'pi_console' || lpad(number::text, 9, '0')
        when kind = 19 then 'pi_console' || lpad((number - 190)::text, 9, '0') end,
    case when kind < 8 then 1000 when kind = 19 then 500 end,
    case when kind < 8 or kind = 19 then 'usd' end,
    case when kind < 8 or kind = 19 then 'evt_console' || lpad(number::text, 9, '0') end,
    now() - (%(rows)s - number) * interval '30 seconds'
from (
    select
        number,
        number / 10 %% 20 as kind,
        case
            when number %% 10 = 0 then 1
            when number %% 10 = 1 and number < 1000 then 2
            else 3 + (number / 200 * 10 + number %% 10) * 7919 %% 99998
        end as user_number
    from generate_series(0, %(rows)s - 1) as number
) as numbers
"""

_ADD_FACTS = """
insert into billing.sales (payment_id, version, user_id, credits, money_amount, currency, paid, recorded_at)
select payment_id, 1, user_id, 100, 1000, 'usd', true, created_at
from public.transactions
where type = 'PURCHASE';

insert into billing.reversals (reversal_id, version, payment_id, money_amount, currency, event_id)
select stripe_id, 1, payment_id, 500, 'usd', event_id
from public.transactions
where type = 'REFUND'
"""

_ADD_BALANCES = """
update public.users
set credits_balance = ledger.amount
from (
    select
        user_id,
        sum(amount) as amount
    from public.transactions
    group by user_id
) as ledger
where users.id = ledger.user_id
"""

_PARK = """
insert into billing.parked_events (event_id, event_type, reason, payment_id, user_reference, payload, parked_at)
select
    'evt_console' || lpad(number::text, 9, '0'),
    'checkout.session.completed',
    'unknown_user',
    'pi_parked' || number,
    '99999999-0000-4000-8000-000000000000',
    %(payload)s,
    now() - number * interval '1 minute'
from generate_series(1, %(parked)s) as number
"""
