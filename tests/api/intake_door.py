"""The intake's routes over HTTP: the real application around `tests.intake_world`, tokens replaced by party ids."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.telemetry.prometheus import PrometheusMetrics
from hub.api.app import create_app
from hub.api.context import ApiSettings, Context
from hub.domain.errors import Unauthenticated
from hub.domain.parties import SCOPES, Principal, Role
from tests.intake_world import Intake, open_intake


class OpenTokens:
    """A token is its party's id."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def verify(self, token: str) -> Principal:
        if token == "app":
            return Principal(token, Role.subscriber, SCOPES[Role.subscriber])
        party = self._intake.members.party(token)
        if party is None:
            raise Unauthenticated
        return Principal(token, party.role, SCOPES[party.role])


@asynccontextmanager
async def open_intake_door(home: Path) -> AsyncIterator[tuple[Intake, httpx.AsyncClient]]:
    """A client that speaks as cmcc unless it says otherwise."""
    async with open_intake(home) as intake:
        tokens: Any = OpenTokens(intake)
        context = Context(
            clock=intake.clock,
            members=intake.members,
            tokens=tokens,
            coordination=MemoryCoordination(intake.clock),
            metrics=PrometheusMetrics(),
            settings=ApiSettings(public_url="http://hub.test"),
            ledger=intake.ledger,
            directory=intake.directory,
            log=intake.log,
            index=intake.index,
            fold=intake.fold,
            writer=intake.writer,
            batches=intake.batches,
            events=intake.events,
        )
        transport = httpx.ASGITransport(create_app(context))
        headers = {"authorization": "Bearer cmcc"}
        async with httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers=headers) as client:
            yield intake, client
