-- Returns whether any of the migrations is applied. The function comes from the first one.

select pg_catalog.to_regprocedure('billing.guard_credits_balance()') is not null as found
