"""The ledger's contract on PostgreSQL, and what several processes on one database need of it."""

from __future__ import annotations

from typing import Any

import pytest
from ledger_contract import FixedClock, LedgerContract

from hub.adapters.sql.ledger import open_ledger
from hub.ports.ledger import Directory, Ledger


class TestPostgresLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    async def make_ledger(self, where: Any) -> tuple[Directory, Ledger]:
        return open_ledger(self.url, FixedClock())
