-- Returns why an object is not to be parked, null if it is.

select billing.parked_already(%(object_id)s, %(payment_id)s) as reason
