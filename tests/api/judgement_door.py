"""Judgements over HTTP: the real application around `tests.intake_world`, with subscribers; a token is a party's id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from joserfc import jwk, jwt

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.oauth.assertions import JwsStatements
from hub.adapters.oauth.keys import JwkReader, generate
from hub.adapters.telemetry.prometheus import PrometheusMetrics
from hub.api.app import create_app
from hub.api.context import ApiSettings, Context
from hub.domain.dispositions import Disposition
from hub.domain.errors import Unauthenticated
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.lifecycle import CHINA
from hub.domain.parties import (
    SCOPES,
    Agreement,
    App,
    AppClass,
    DeliveryMode,
    Party,
    PartyKey,
    Principal,
    Role,
    Subscription,
    SubscriptionState,
)
from hub.flow.catalogue import entry_of
from hub.flow.check import Check
from hub.flow.clear import Clear
from hub.flow.reader import Reader
from hub.flow.renew import Renew
from hub.flow.report import Report
from hub.flow.waive import Waive
from hub.ports.ledger import Answer, AnswerException, Cursor, Receipt
from hub.ports.log import Header
from tests.intake_world import NOW, PLAN, Intake, open_intake
from tests.making import CODEC

OWN = 13_800_138_000
COVERED = datetime(2026, 1, 1, tzinfo=CHINA)
APPS = {"bank": AppClass.bank, "games": AppClass.games}
JSON = {"content-type": "application/json"}


@dataclass
class Court:
    intake: Intake
    client: httpx.AsyncClient
    renew: Renew
    private: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def get(self, path: str, who: str = "cmcc", **params: str) -> httpx.Response:
        return await self.client.get(path, params=params, headers={"authorization": f"Bearer {who}"})

    async def post(self, path: str, body: Any, who: str = "cmcc", **headers: str) -> httpx.Response:
        given = {"authorization": f"Bearer {who}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.client.post(path, json=body, headers=given)

    async def join(self, party_id: str, role: Role, **options: Any) -> None:
        await self.intake.directory.put_party(Party(party_id, role, party_id, NOW, **options))
        private, public = generate("ES256")
        kid, told = JwkReader().public(public)
        self.private[party_id] = private | {"kid": kid}
        await self.intake.directory.put_key(PartyKey(party_id, kid, told, NOW))
        await self.intake.members.refresh()

    async def schedule(self, numbers: list[int], *, days_ago: int = 100, seq: int = 1, caller: str = "cmcc") -> str:
        """A night's file of scheduled releases, committed and catalogued; returns the batch id."""
        at = (NOW - timedelta(days=days_ago)).isoformat()
        rows = [f"{number},{at}" for number in numbers]
        batch = await self.intake.send(rows, event=EventType.release_scheduled, seq=seq, caller=caller)
        assert batch.rows_accepted == len(numbers), batch.reasons
        await self.list_all()
        return batch.batch_id

    async def list_all(self) -> None:
        """What the catalogue's worker does."""
        records = await self.intake.records()
        entries = [entry_of(record, CODEC, PLAN, self.intake.members.policy) for record in records]
        await self.intake.ledger.catalogue(entries, dict(enumerate(await self.intake.fold.catch_up())))

    async def say(
        self, app: str, default: Disposition | None, but: dict[int, Disposition] | None = None, received: bool = True
    ) -> None:
        """The app's answer to every chunk of the log that asks something; ``but``: numbers answered otherwise."""
        answers, receipts, now = [], [], self.intake.clock.now()
        for record, chunk in await self.intake.chunks():
            if record.headers[Header.apps].split(",").count(app) == 0 if Header.apps in record.headers else False:
                continue
            exceptions = []
            for number, disposition in (but or {}).items():
                rows = np.flatnonzero(chunk.numbers == number).astype(np.uint16)
                if len(rows):
                    review = now + timedelta(days=30) if disposition.needs_review_at else None
                    exceptions.append(AnswerException(disposition, rows, review))
            digest = f"{app}{default}{but}"
            where = (f"sub_{app}", record.record_id, record.position)
            receipts.append(Receipt(*where, now, 1, "pull"))
            if default or exceptions:
                answers.append(Answer(*where, len(chunk), default, tuple(exceptions), digest, now))
        if received:
            await self.intake.ledger.deliver(receipts=receipts)
        await self.intake.ledger.answer(answers)

    def sign(self, who: str, alg: str = "ES256", **claims: Any) -> str:
        now = int(self.intake.clock.now().timestamp())
        good = {
            "waiver": "numhub/v1", "subscriber_id": "of-bank", "person": "Li Ming", "reason": "court order 7",
            "iat": now, "jti": "statement-1",
        }  # fmt: skip
        told = {name: value for name, value in (good | claims).items() if value is not None}
        private = self.private[who]
        return jwt.encode({"alg": alg, "kid": private["kid"]}, told, jwk.import_key(private), algorithms=[alg])


class _OpenTokens:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def verify(self, token: str) -> Principal:
        party = self._intake.members.party(token)
        if party is None:
            raise Unauthenticated
        return Principal(token, party.role, SCOPES[party.role])


@asynccontextmanager
async def open_court(home: Path) -> AsyncIterator[Court]:
    """cmcc, cucc and an MVNO from the intake's world; a bank and a games app that pull; miit is the regulator."""
    async with open_intake(home) as intake:
        reader = Reader(intake.log, intake.fold, CODEC)
        parts = (intake.ledger, intake.fold, intake.index)
        renew = Renew(*parts, intake.log, intake.writer, reader, CODEC, intake.members, PLAN, intake.clock)
        tokens: Any = _OpenTokens(intake)
        context = Context(
            clock=intake.clock,
            members=intake.members,
            tokens=tokens,
            coordination=MemoryCoordination(intake.clock),
            metrics=PrometheusMetrics(),
            settings=ApiSettings(public_url="http://hub.test"),
            ledger=intake.ledger,
            clear=Clear(*parts, intake.log, reader, CODEC, intake.members, intake.clock),
            renew=renew,
            check=Check(*parts, intake.members, PLAN, intake.clock),
            waive=Waive(intake.ledger, intake.members, JwsStatements(), intake.clock),
            report=Report(intake.ledger, intake.members, intake.fold, intake.clock),
        )
        transport = httpx.ASGITransport(create_app(context))
        async with httpx.AsyncClient(transport=transport, base_url="http://hub.test") as client:
            court = Court(intake, client, renew)
            await court.join("miit", Role.regulator)
            await court.join("desk", Role.operator)
            for app_id, app_class in APPS.items():
                await _enrol(court, app_id, app_class)
            await intake.members.refresh()
            yield court


async def _enrol(court: Court, app_id: str, app_class: AppClass) -> None:
    whose, directory = f"of-{app_id}", court.intake.directory
    await court.join(whose, Role.subscriber)
    await directory.put_app(App(app_id, whose, app_class, app_id.title(), NOW))
    years = (NOW - timedelta(days=999), NOW + timedelta(days=999))
    await directory.put_agreement(Agreement(f"agr_{app_id}", "*", whose, Purpose.account_unbind, "pia", *years, NOW))
    subscription = Subscription(
        subscription_id=f"sub_{app_id}",
        subscriber_id=whose,
        app_id=app_id,
        app_class=app_class,
        purpose=Purpose.account_unbind,
        event_types=frozenset(EventType),
        lanes=frozenset(Lane),
        mode=DeliveryMode.pull,
        state=SubscriptionState.active,
        created_at=NOW,
    )
    cursors = [Cursor(f"sub_{app_id}", p, lane, 0, 0) for p in range(court.intake.log.partitions) for lane in Lane]
    await court.intake.ledger.open_cursors(cursors)
    await directory.put_subscription(subscription)
