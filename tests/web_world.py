"""A hub as the regulator's page sees it: report rows in lists, a directory, a clock, the application around them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from fastapi import FastAPI

from hub.adapters.memory.coordination import MemoryCoordination
from hub.api.app import create_app
from hub.api.context import ApiSettings, Context
from hub.domain.dispositions import Disposition
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.parties import App, AppClass, DeliveryMode, Party, Role, Subscription, SubscriptionState
from hub.flow.members import Members
from hub.flow.report import Report
from hub.ports.ledger import DirectorySnapshot, Waiver
from hub.web.mount import mount
from hub.web.session import sign_link

KEY = bytes(range(32))
NOW = datetime(2026, 3, 20, 6, 30, tzinfo=UTC)
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"

CARRIERS = {"cmcc": "中国移动", "cucc": "中国联通", "ctcc": "中国电信", "cbn": "中国广电", "mvno-sky": EVIL}
APPS = {
    "bank-sunrise": (AppClass.bank, "朝阳银行"),
    "pay-swift": (AppClass.payment, "迅付"),
    "mail-cloud": (AppClass.social_mail, "云信 Mail"),
    "drive-blue": (AppClass.cloud_storage, "蓝盘"),
    "shop-panda": (AppClass.e_commerce, "熊猫商城"),
    "trip-go": (AppClass.lifestyle_travel, "走走旅行"),
    "fund-lake": (AppClass.securities_fund, "湖畔基金"),
    "gov-one": (AppClass.government, "一网通办"),
    "games-fox": (AppClass.games, f"狐狸游戏 {EVIL}"),
    "loan-easy": (AppClass.lending, "易贷"),
}
PROVINCES = {
    "广东": 18, "江苏": 11, "山东": 10, "浙江": 9, "河南": 8, "四川": 8, "河北": 6, "湖南": 6, "湖北": 5, "安徽": 5,
    "福建": 4, "北京": 4, "上海": 4, "辽宁": 4, "陕西": 3, "江西": 3, "云南": 3, "广西": 3, "山西": 2, "贵州": 2,
    "黑龙江": 2, "重庆": 2, "吉林": 2, "内蒙古": 1, "甘肃": 1, "新疆": 1, "天津": 1, "海南": 1, "宁夏": 1, "青海": 1,
    "西藏": 1,
}  # fmt: skip

Rows = dict[str, list[dict[str, Any]]]
NAMES = ("published", "provinces", "delivery", "answers", "open", "clearances", "batches", "renewals")


class HandClock:
    def __init__(self) -> None:
        self.moment, self.ticks = NOW, 0.0

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        self.ticks += 3.0  # longer than a count is kept, so that every request counts anew
        return self.ticks

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing sleeps here")


@dataclass
class RowLedger:
    rows: Rows = field(default_factory=lambda: {name: [] for name in NAMES})
    listed: dict[int, int] = field(default_factory=lambda: {0: 700, 1: 534})
    signed: list[Waiver] = field(default_factory=list)

    async def report(self, name: str, **filters: Any) -> list[dict[str, Any]]:
        return self.rows[name]

    async def catalogue_positions(self) -> dict[int, int]:
        return self.listed

    async def waivers(self) -> list[Waiver]:
        return self.signed


class FixedFold:
    def positions(self) -> list[int]:
        return [700, 534]


class OneDirectory:
    """The directory as one snapshot that a test may replace."""

    def __init__(self, snapshot: DirectorySnapshot) -> None:
        self.now = snapshot

    async def version(self) -> int:
        return self.now.version

    async def snapshot(self) -> DirectorySnapshot:
        return self.now

    def suspend(self, party_id: str) -> None:
        party = replace(self.now.parties[party_id], suspended=True)
        parties = {**self.now.parties, party_id: party}
        self.now = replace(self.now, version=self.now.version + 1, parties=parties)


@dataclass
class World:
    app: FastAPI
    clock: HandClock
    ledger: RowLedger
    directory: OneDirectory
    members: Members

    def link(self, party_id: str = "miit") -> str:
        return f"/login?ticket={sign_link(KEY, party_id, self.clock.now())}"

    def ticket(self, party_id: str = "miit") -> str:
        return sign_link(KEY, party_id, self.clock.now())


async def make_world(rows: Rows | None = None, public_url: str = "http://hub.test", clock: Any = None) -> World:
    clock = clock or HandClock()
    directory = OneDirectory(_snapshot())
    members = Members(directory, clock)  # type: ignore[arg-type]
    await members.refresh()
    ledger = RowLedger(rows) if rows is not None else RowLedger()
    context = Context(
        clock=clock,
        members=members,
        tokens=None,  # type: ignore[arg-type]
        coordination=MemoryCoordination(clock),
        metrics=None,  # type: ignore[arg-type]
        settings=ApiSettings(public_url=public_url),
        report=Report(ledger, members, FixedFold(), clock),  # type: ignore[arg-type]
    )
    app = create_app(context)
    mount(app, context, KEY)
    return World(app, clock, ledger, directory, members)


def _snapshot() -> DirectorySnapshot:
    parties = [Party(name, Role.carrier, title, NOW) for name, title in CARRIERS.items()]
    parties += [Party(f"{name}-ltd", Role.subscriber, title, NOW) for name, (_, title) in APPS.items()]
    parties += [Party("miit", Role.regulator, "工业和信息化部", NOW), Party("ops", Role.operator, "运营值班", NOW)]
    return DirectorySnapshot(
        version=1,
        parties={party.party_id: party for party in parties},
        keys={},
        apps={name: App(name, f"{name}-ltd", kind, title, NOW) for name, (kind, title) in APPS.items()},
        agreements=(),
        subscriptions={
            f"sub_{name}": Subscription(
                f"sub_{name}", f"{name}-ltd", name, kind, Purpose.account_unbind, frozenset(EventType),
                frozenset(Lane), DeliveryMode.webhook_full, SubscriptionState.active, NOW,
            )
            for name, (kind, _) in APPS.items()
        },
        policy={},
    )  # fmt: skip


def example_rows(days: int = 16, scale: int = 900) -> Rows:
    """A fortnight of a mid-sized hub; the same every time."""
    random = Random(7)  # the figures' shape, nothing secret
    rows: Rows = {name: [] for name in NAMES}
    weights = dict(zip(CARRIERS, (47, 26, 23, 1, 3), strict=True))
    for back in range(days, 0, -1):
        day = (NOW - timedelta(days=back)).date().isoformat()
        for carrier, weight in weights.items():
            for event, part in (
                (EventType.deactivated, 0.3), (EventType.release_scheduled, 1.0), (EventType.restored, 0.02),
                (EventType.released, 0.35 if back > 5 else 0.0), (EventType.renewal_requested, 0.004),
            ):  # fmt: skip
                numbers = int(weight * scale * part * random.uniform(0.5, 1.4))
                if numbers:
                    _publish(rows, random, day, carrier, event, numbers, back)
    total = sum(row["numbers"] for row in rows["published"])
    share = sum(PROVINCES.values())
    rows["provinces"] = [{"province": name, "numbers": total * part // share} for name, part in PROVINCES.items()]
    for carrier, weight in weights.items():
        seen = weight * scale * days
        rows["batches"].append(
            {"carrier_id": carrier, "batches": days, "rows_seen": seen, "rows_accepted": seen - weight * 13,
             "rows_refused": weight * 13}
        )  # fmt: skip
        rows["clearances"].append(
            {"carrier_id": carrier, "judged_at": NOW - timedelta(hours=weight), "batch_id": f"bat_{carrier:0<24}",
             "go": seen // 2, "go_with_exceptions": seen // 80, "wait": seen // 4}
        )  # fmt: skip
    for back in range(days, 0, -1):
        day = (NOW - timedelta(days=back)).date().isoformat()
        rows["renewals"].append({"day": day, "requested": 20 + back, "app_requests": 1240})
    for name, late, chunks, pairs in (
        ("games-fox", 200, 14, 88_410), ("loan-easy", 31, 3, 9_400), ("fund-lake", 0, 0, 4_200),
    ):  # fmt: skip
        rows["open"].append(
            {"subscription_id": f"sub_{name}", "event_type": "release_scheduled", "chunks_open": 4 + chunks,
             "numbers_open": pairs, "oldest_reported_at": NOW - timedelta(days=30), "overdue_chunks": chunks,
             "oldest_due_at": NOW - timedelta(hours=late - 0.4)}
        )  # fmt: skip
    return rows


def _publish(rows: Rows, random: Random, day: str, carrier: str, event: EventType, numbers: int, back: int) -> None:
    about = {"carrier_id": carrier, "event_type": event.value, "lane": "bulk", "day": day}
    chunks = numbers // 10_000 + 1
    rows["published"].append({**about, "chunks": chunks, "numbers": numbers})
    for place, name in enumerate(APPS):
        received = numbers if (place + back) % 9 else int(numbers * random.uniform(0.3, 0.9))
        whole = received == numbers
        rows["delivery"].append(
            {
                "subscription_id": f"sub_{name}",
                **about,
                "chunks_owed": chunks,
                "chunks_received": chunks - (not whole),
                "chunks_parked": int(not whole and name == "games-fox"),
                "numbers_owed": numbers,
                "numbers_received": received,
            }
        )
        if event in (EventType.restored, EventType.released):
            continue
        answered = int(received * min(1.0, 0.25 + back / 14) * (0.4 if name == "games-fox" else 1.0))
        hits = int(answered * (0.08 - place * 0.006))
        parts = {Disposition.no_account: answered - hits, Disposition.unbound: hits * 7 // 10}
        if event is EventType.deactivated:
            parts = {Disposition.soft_locked: hits, Disposition.no_account: answered - hits}
        else:
            rest = hits - hits * 7 // 10
            parts |= {Disposition.already_rebound: rest // 2, Disposition.held_funds: rest // 4,
                      Disposition.held_debt: rest // 8, Disposition.needs_holder_action: rest // 10,
                      Disposition.failed_retryable: rest // 40}  # fmt: skip
        for disposition, count in parts.items():
            if count:
                rows["answers"].append(
                    {"subscription_id": f"sub_{name}", "carrier_id": carrier, "event_type": event.value, "day": day,
                     "disposition": disposition.value, "numbers": count}
                )  # fmt: skip


def example_waivers() -> list[Waiver]:
    return [
        Waiver(
            "wai_1", "loan-easy-ltd", None, "王督办", "系统迁移，三月底前不等待其答复", "miit",
            NOW - timedelta(days=2), "jws",
        ),
        Waiver(
            "wai_2", "games-fox-ltd", "bat_cmcc00000000000000000000", f"李{EVIL}", "停机检修", "miit",
            NOW - timedelta(days=1), "jws", NOW + timedelta(days=7),
        ),
    ]  # fmt: skip
