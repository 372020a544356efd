"""HTTP requests to a worker on this machine."""

from __future__ import annotations

import requests


def loopback_session() -> requests.Session:
    """Return a session that ignores the proxies and the .netrc of the environment."""
    session = requests.Session()
    session.trust_env = False
    return session
