"""Shared by the client's tests: a fake hub, and moments that are easy to read."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

SDK = Path(__file__).parents[2] / "clients" / "python"
if str(SDK / "src") not in sys.path:  # the package is a distribution of its own and may not be installed here
    sys.path.insert(0, str(SDK / "src"))

from numhub_client.testing import FakeHub  # noqa: E402


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub(now=datetime(2026, 3, 1, 12, tzinfo=UTC))
