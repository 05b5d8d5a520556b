"""`numhub serve` again and again without paying for the imports each time: a process that has loaded everything and
runs nothing, from which each hub is forked. What is killed is a whole hub process, with its own loops and threads.

    python hub_stem.py LOG DATA PORT

Reads lines: ``start`` forks a hub and answers with its pid; ``reap`` waits for it and answers with its wait status.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    log, data, port = sys.argv[1:4]
    import hub.app.cli

    child = 0
    for line in sys.stdin:
        if line.strip() == "start":
            child = os.fork()
            if child == 0:
                _become_hub(hub.app.cli.main, log, data, port)
            _say(child)
        else:
            _, status = os.waitpid(child, 0)
            _say(status)


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _become_hub(serve: object, log: str, data: str, port: str) -> None:
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    sys.argv = ["numhub", "serve", "--data", data, "--port", port]
    code = 1
    try:
        serve()  # type: ignore[operator]
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
