"""``python -m hub.app.cli`` is the command ``numhub``."""

from hub.app.cli.main import main

main()
