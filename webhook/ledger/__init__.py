"""Every statement that is sent to Postgres."""
