"""``webhook dev`` and ``webhook demo``: the worker with an embedded Postgres."""
