-- Records objects that were fetched from Stripe, or reports what that would do.

select billing.reconcile(%(deliveries)s, %(dry_run)s) as results
