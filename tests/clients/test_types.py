"""What callers may rely on under a strict type checker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_surface_is_typed_as_the_typing_tests_say() -> None:
    """mypy --strict over files that are never run; unused ignores there are errors too."""
    files = [
        "clients/python/typing_tests/surface.py",
        *sorted(map(str, (ROOT / "clients/python/examples").glob("*.py"))),
    ]
    done = subprocess.run([sys.executable, "-m", "mypy", *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
