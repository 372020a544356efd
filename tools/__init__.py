"""Programs for maintainers that are not tests."""
