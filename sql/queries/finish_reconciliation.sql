-- Records that a reconciliation has looked at its whole window.

select billing.finish_reconciliation(%(run_id)s)
