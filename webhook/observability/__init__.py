"""Logs, metrics and traces for the operator."""
