"""The command ``soutu``. Only this package prints or exits."""

from soutu.cli.main import main

__all__ = ["main"]
