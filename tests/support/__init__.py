"""Fixtures, builders and stand-ins that the tests share."""
