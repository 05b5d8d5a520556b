"""Rules for all tests: what is missing is skipped with its reason, unless NUMHUB_TEST_REQUIRE names it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_CHECKOUT = [str(ROOT), str(ROOT / "clients" / "python" / "src")]
os.environ["PYTHONPATH"] = os.pathsep.join([*_CHECKOUT, *filter(None, [os.environ.get("PYTHONPATH")])])
"""Processes that tests start run this checkout, as the tests themselves do."""

REQUIRED = frozenset(filter(None, os.environ.get("NUMHUB_TEST_REQUIRE", "").split(",")))


def missing(service: str, reason: str) -> None:
    """Skip the calling test, or fail it where ``service`` is required (NUMHUB_TEST_REQUIRE=a,b)."""
    if service in REQUIRED:
        pytest.fail(f"{service} is required here but {reason}")
    pytest.skip(f"{service}: {reason}")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting or proxy of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("NUMHUB_") and name != "NUMHUB_TEST_REQUIRE" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium on this machine."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("chromium", "no Chromium was found on the PATH")
    assert path is not None
    return path
