-- Returns the role that statements run as.

select current_user as role
