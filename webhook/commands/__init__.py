"""The other commands of `webhook`, one module for each group."""
