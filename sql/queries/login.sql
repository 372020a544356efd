-- Returns the login of the connection, as an identifier.

select pg_catalog.quote_ident(session_user) as login
