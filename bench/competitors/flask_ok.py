"""Flask that answers 200 and does nothing: the cost of the framework and its server alone."""

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, request


def create_app() -> Flask:
    """Return the application."""
    app = Flask(__name__)

    @app.post("/webhook")
    def webhook() -> Any:
        request.get_data(cache=False)
        return jsonify(outcome="recorded")

    @app.get("/healthz")
    def healthz() -> Any:
        return jsonify(status="ok")

    return app
