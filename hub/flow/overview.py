"""The regulator's view at one glance, made from the ledger's report rows. Pure: rows in, plain values out.

``funnel``        pairs of number and subscription: published (owed), delivered (a receipt), answered (any disposition),
                  final (done or held); numbers: published, scheduled, cleared (newest judgement per batch), released
``late``          subscriptions with overdue chunks, worst first; ``open``: how much is unanswered in all
``dispositions``  what was answered; ``provinces``
``days``, ``event_types``, ``classes``, ``apps``, ``carriers``: the same figures by each
``clearances``, ``renewals``, ``waivers``: the newest judgements, requests by day, signed acts in force
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from hub.domain.dispositions import Disposition, Standing
from hub.domain.events import ASKS_FOR_ANSWER, EventType
from hub.ports.ledger import DirectorySnapshot, Waiver

Row = dict[str, Any]
Rows = Mapping[str, Sequence[Row]]

_FIGURES = ("published", "owed", "delivered", "asked", "reached", "answered", "done", "held", "failed", "pending")
"""``asked`` and ``reached``: owed and delivered of those events only to which an answer is due."""
_ASKS = frozenset(event.value for event in ASKS_FOR_ANSWER)
NEWEST = 20


def overview(rows: Rows, waivers: Sequence[Waiver], snapshot: DirectorySnapshot, now: datetime) -> Row:
    """``rows``: the ledger's reports by name (published, provinces, delivery, answers, open, ..)."""
    subscriptions = snapshot.subscriptions

    def app_of(row: Row) -> str:
        found = subscriptions.get(row.get("subscription_id", ""))
        return found.app_id if found else ""

    def class_of(row: Row) -> str:
        found = subscriptions.get(row.get("subscription_id", ""))
        return found.app_class.value if found else ""

    cleared = _cleared(rows["clearances"])
    return {
        "funnel": _funnel(rows, sum(cleared.values())),
        "late": _late(rows["open"], snapshot, now),
        "open": {
            "chunks": sum(row["chunks_open"] for row in rows["open"]),
            "numbers": sum(row["numbers_open"] for row in rows["open"]),
            "overdue_chunks": sum(row["overdue_chunks"] for row in rows["open"]),
        },
        "dispositions": _dispositions(rows["answers"]),
        "provinces": _provinces(rows["provinces"]),
        "days": [{"day": key, **figures} for key, figures in _by(rows, lambda row: str(row["day"]))],
        "event_types": [{"event_type": key, **f} for key, f in _by(rows, lambda row: str(row["event_type"]))],
        "classes": [{"app_class": key, **figures} for key, figures in _by(rows, class_of) if key],
        "apps": [
            {"app_id": key, "name": snapshot.apps[key].name, "app_class": snapshot.apps[key].app_class.value, **figures}
            for key, figures in _by(rows, app_of)
            if key in snapshot.apps
        ],
        "carriers": _carriers(rows, cleared, snapshot),
        "clearances": [
            {**row, "carrier_name": _name(row["carrier_id"], snapshot)} for row in rows["clearances"][:NEWEST]
        ],
        "renewals": [dict(row) for row in rows["renewals"]],
        "waivers": [
            {
                "waiver_id": waiver.waiver_id,
                "subscriber_id": waiver.subscriber_id,
                "batch_id": waiver.batch_id,
                "person": waiver.person,
                "reason": waiver.reason,
                "issued_at": waiver.issued_at,
                "ends_at": waiver.ends_at,
            }
            for waiver in waivers
            if waiver.ends_at is None or waiver.ends_at > now
        ],
    }


def _by(rows: Rows, key_of: Callable[[Row], str]) -> list[tuple[str, dict[str, int]]]:
    """The figures added up by a key. Rows of published numbers have no subscription: there ``key_of`` says ""."""
    found: dict[str, dict[str, int]] = {}

    def add(row: Row, **counts: int) -> None:
        figures = found.setdefault(key_of(row), dict.fromkeys(_FIGURES, 0))
        for name, count in counts.items():
            figures[name] += count

    for row in rows["published"]:
        add(row, published=row["numbers"])
    for row in rows["delivery"]:
        owed, delivered = row["numbers_owed"], row["numbers_received"]
        add(row, owed=owed, delivered=delivered)
        if row["event_type"] in _ASKS:
            add(row, asked=owed, reached=delivered)
    for row in rows["answers"]:
        standing = Disposition(row["disposition"]).standing.name
        add(row, answered=row["numbers"], **{standing: row["numbers"]})
    return sorted(found.items())


def _funnel(rows: Rows, cleared: int) -> Row:
    owed, final = rows["delivery"], (Standing.done, Standing.held)

    def published(*only: EventType) -> int:
        return sum(row["numbers"] for row in rows["published"] if not only or row["event_type"] in only)

    return {
        "pairs": {
            "published": sum(row["numbers_owed"] for row in owed),
            "delivered": sum(row["numbers_received"] for row in owed),
            "answered": sum(row["numbers"] for row in rows["answers"]),
            "final": sum(r["numbers"] for r in rows["answers"] if Disposition(r["disposition"]).standing in final),
        },
        "chunks": {
            "published": sum(row["chunks"] for row in rows["published"]),
            "owed": sum(row["chunks_owed"] for row in owed),
            "delivered": sum(row["chunks_received"] for row in owed),
            "parked": sum(row["chunks_parked"] for row in owed),
        },
        "numbers": {
            "published": published(),
            "scheduled": published(EventType.release_scheduled),
            "cleared": cleared,
            "released": published(EventType.released),
        },
    }


def _cleared(clearances: Sequence[Row]) -> dict[str, int]:
    """By carrier: the most numbers that one judgement of each batch let go. Not the newest judgement: once numbers
    are on sale, a later one counts them no more."""
    best: dict[tuple[str, str], int] = {}
    for row in clearances:
        if row["batch_id"] is not None:
            key = (row["carrier_id"], row["batch_id"])
            best[key] = max(best.get(key, 0), row["go"] + row["go_with_exceptions"])
    found: dict[str, int] = {}
    for (carrier_id, _), numbers in best.items():
        found[carrier_id] = found.get(carrier_id, 0) + numbers
    return found


def _late(open_rows: Sequence[Row], snapshot: DirectorySnapshot, now: datetime) -> list[Row]:
    found = []
    for row in open_rows:
        subscription = snapshot.subscriptions.get(row["subscription_id"])
        if not row["overdue_chunks"] or subscription is None:
            continue
        app = snapshot.apps.get(subscription.app_id)
        whose = {
            "app_id": subscription.app_id,
            "app_name": app.name if app else subscription.app_id,
            "subscriber_id": subscription.subscriber_id,
            "app_class": subscription.app_class.value,
            "state": subscription.state.value,
        }
        late = int((now - row["oldest_due_at"]).total_seconds())
        found.append({**row, **whose, "late_seconds": max(late, 0)})
    return sorted(found, key=lambda row: (-row["late_seconds"], row["app_id"]))


def _dispositions(answers: Sequence[Row]) -> list[Row]:
    found: dict[str, int] = {}
    for row in answers:
        found[row["disposition"]] = found.get(row["disposition"], 0) + row["numbers"]
    return [
        {"disposition": d.value, "standing": d.standing.name, "numbers": found[d.value]}
        for d in Disposition
        if found.get(d.value)
    ]


def _name(party_id: str, snapshot: DirectorySnapshot) -> str:
    party = snapshot.parties.get(party_id)
    return party.name if party else party_id


def _provinces(rows: Sequence[Row]) -> list[Row]:
    """Numbers by home region, most first, whatever happened to them."""
    found: dict[str, int] = {}
    for row in rows:
        found[row["province"]] = found.get(row["province"], 0) + row["numbers"]
    ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"province": province, "numbers": numbers} for province, numbers in ordered]


def _carriers(rows: Rows, cleared: Mapping[str, int], snapshot: DirectorySnapshot) -> list[Row]:
    batches = {row["carrier_id"]: row for row in rows["batches"]}
    figures = dict(_by(rows, lambda row: str(row["carrier_id"])))
    found = []
    for carrier_id in sorted(figures.keys() | batches.keys()):
        sent = batches.get(carrier_id, {})
        found.append(
            {
                "carrier_id": carrier_id,
                "name": _name(carrier_id, snapshot),
                **figures.get(carrier_id, dict.fromkeys(_FIGURES, 0)),
                "batches": sent.get("batches", 0),
                "rows_refused": sent.get("rows_refused", 0),
                "cleared": cleared.get(carrier_id, 0),
            }
        )
    return found
