"""A broker named in the environment."""

from __future__ import annotations

import os

import pytest

from tests.conftest import missing


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    """host:port of a running broker."""
    address = os.environ.get("NUMHUB_TEST_KAFKA")
    if not address:
        missing("kafka", "no broker was named in NUMHUB_TEST_KAFKA")
    assert address
    return address
