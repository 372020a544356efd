-- Begins the audit: one read-only snapshot, as service_role.
-- Checks scan whole tables, and the row estimates of their steps are too low, so nested loops are off.

begin isolation level repeatable read, read only;
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
set local enable_nestloop = off;
set local jit = off;
set local role service_role;
set local search_path = pg_catalog, pg_temp;
