"""A hub's front door for tests: real tokens, real directory on SQLite, a manual clock, an echo route per body kind."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Depends, FastAPI
from joserfc import jwk, jwt
from pydantic import Field

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.oauth.keys import HubKeys, JwkReader, generate, open_hub_keys
from hub.adapters.oauth.tokens import ASSERTION_TYPE, JwtTokens
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import ManualClock
from hub.adapters.telemetry.prometheus import PrometheusMetrics
from hub.api.app import create_app
from hub.api.auth import require
from hub.api.context import ApiSettings, Context
from hub.api.limits import IdempotencyKey
from hub.api.strict import StrictRoute
from hub.domain.parties import Principal, Role, Scope
from hub.flow.enrol import Enrol
from hub.flow.members import Members
from hub.wire.base import Message, NumberText

ISSUER = "https://hub.example"


class ProbeIn(Message):
    number: NumberText
    count: int = Field(ge=0, le=10)


async def _probe(body: ProbeIn, caller: Annotated[Principal, Depends(require(Scope.events_publish))]) -> dict[str, Any]:
    return {"count": body.count, "by": caller.party_id}


async def _open_probe(body: ProbeIn) -> dict[str, int]:
    return {"count": body.count}


async def _keyed(key: IdempotencyKey) -> dict[str, str]:
    return {"key": key}


async def _broken() -> None:
    raise ZeroDivisionError("13812345678")


def probes() -> APIRouter:
    """Routes that only tests have: what stands behind the door in every case."""
    router = APIRouter(route_class=StrictRoute)
    router.add_api_route("/t/probe", _probe, methods=["POST"])
    router.add_api_route("/t/open", _open_probe, methods=["POST"])
    router.add_api_route("/t/keyed", _keyed, methods=["POST"])
    router.add_api_route("/t/broken", _broken, methods=["GET"])
    return router


@dataclass
class Door:
    app: FastAPI
    client: httpx.AsyncClient
    clock: ManualClock
    members: Members
    enrol: Enrol
    coordination: MemoryCoordination
    keys: HubKeys
    context: Context
    private: dict[str, dict[str, Any]] = field(default_factory=dict)
    _jti: Any = field(default_factory=lambda: itertools.count())

    async def add(self, party_id: str, role: Role, **options: Any) -> str | None:
        """Enrol a party with a fresh ES256 key; returns the client secret of a sandbox."""
        private, public = generate("ES256")
        self.private[party_id] = private
        return (await self.enrol.add_party(role, party_id, party_id, keys=[public], **options)).client_secret

    def claims(self, party_id: str, **changes: Any) -> dict[str, Any]:
        """The claims of a good assertion, changed; a change to None leaves the claim out."""
        now = int(self.clock.now().timestamp())
        good = {
            "iss": party_id, "sub": party_id, "aud": ISSUER, "iat": now, "exp": now + 60,
            "jti": f"nonce-{next(self._jti):08}",
        }  # fmt: skip
        return {name: value for name, value in (good | changes).items() if value is not None}

    def assertion(self, party_id: str, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        private = self.private[party_id]
        key = jwk.import_key(private)
        given = {"alg": "ES256", "kid": private["kid"], **(header or {})}
        return jwt.encode(given, self.claims(party_id, **changes), key, algorithms=["ES256"])

    async def ask(self, assertion: str, **form: str) -> httpx.Response:
        """One token request with this assertion."""
        data = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return await self.client.post("/oauth2/token", data=data | form)

    async def token(self, party_id: str, **form: str) -> str:
        answer = await self.ask(self.assertion(party_id), **form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def bearer(self, party_id: str) -> dict[str, str]:
        return {"authorization": f"Bearer {await self.token(party_id)}"}


@asynccontextmanager
async def open_door(tmp_path: Path, **settings: Any) -> AsyncIterator[Door]:
    clock = ManualClock()
    directory, ledger = open_ledger(tmp_path / "ledger.db", clock)
    members = Members(directory, clock)
    await members.refresh()
    keys = open_hub_keys(tmp_path / "keys")
    coordination = MemoryCoordination(clock)
    tokens = JwtTokens(ISSUER, keys, lambda: members.snapshot, coordination, clock)
    metrics = PrometheusMetrics()
    enrol = Enrol(directory, members, clock, Random(7), JwkReader())
    context = Context(
        clock=clock,
        members=members,
        tokens=tokens,
        coordination=coordination,
        metrics=metrics,
        settings=ApiSettings(public_url=ISSUER, **settings),
        ledger=ledger,
        directory=directory,
        enrol=enrol,
        exposition=metrics.exposition,
    )
    app = create_app(context)
    app.include_router(probes(), include_in_schema=False)
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
            yield Door(app, client, clock, members, enrol, coordination, keys, context)
    finally:
        await ledger.close()
