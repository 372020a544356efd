-- Returns the given pairs of an invoice and a payment that the ledger does not link to one sale.

select
    invoice_id,
    payment_id
from unnest(%(invoice_ids)s::text[], %(payment_ids)s::text[]) as pair (invoice_id, payment_id)
where payment_id <> all (billing.linked_payments(array[invoice_id]))
