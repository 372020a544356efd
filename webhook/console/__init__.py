"""The operator's console: web pages that explain payments and settle parked events."""
