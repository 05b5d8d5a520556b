"""The command ``numhub``. Each group lives in a module of its own and is imported when it is asked for."""

from hub.app.cli.main import app, main

__all__ = ["app", "main"]
