-- Records several deliveries. One that waits for a lock must not hold up the others for long.

set local lock_timeout = '1s';
select billing.record(%(deliveries)s) as results
