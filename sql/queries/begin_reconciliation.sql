-- Records that a reconciliation begins.

select billing.begin_reconciliation(%(since)s, %(until)s) as run_id
