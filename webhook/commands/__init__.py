"""The other commands of `webhook`, one module each."""
