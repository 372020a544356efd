-- Returns whether an operator's action has this id.

select exists (select from billing.operator_actions where id = %(id)s) as found
