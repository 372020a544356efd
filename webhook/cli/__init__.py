"""The ``webhook`` command: options, help and exit codes, one module for each group of commands."""

from webhook.cli.root import commands, main

__all__ = ["commands", "main"]
