"""gunicorn: settings, worker class, limits on connections."""
