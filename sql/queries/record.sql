-- Records one delivery.

select billing.record(%(deliveries)s) as results
