-- Returns the time up to which finished reconciliations have looked without a gap.

select billing.covered_until() as covered_until
