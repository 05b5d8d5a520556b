"""Parties, keys, apps, agreements, subscriptions and policy. Implements `hub.ports.ledger.Directory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, and_, delete, func, insert, or_, select, update

from hub.adapters.sql.judgements import changed
from hub.adapters.sql.keys import Keys
from hub.adapters.sql.runner import Runner
from hub.adapters.sql.schema import (
    LANE_BY_NUMBER,
    LANE_NUMBER,
    agreements,
    apps,
    directory_state,
    parties,
    party_keys,
    subscription_secrets,
    subscriptions,
)
from hub.adapters.sql.statements import Upsert
from hub.domain.events import BY_NUMBER, EventType, Lane, Purpose
from hub.domain.parties import (
    Agreement,
    App,
    AppClass,
    DeliveryMode,
    Party,
    PartyKey,
    Role,
    SigningSecret,
    Subscription,
    SubscriptionState,
)
from hub.ports.clock import Clock
from hub.ports.ledger import DirectorySnapshot

_put_party = Upsert.whole_row(parties)
_put_key = Upsert.whole_row(party_keys)
_put_app = Upsert.whole_row(apps)
_put_agreement = Upsert.whole_row(agreements)
_put_subscription = Upsert.whole_row(subscriptions)


class SqlDirectory:
    """Shares the runner and keys of a `SqlLedger`; other processes may change the same tables at any time.

    Putting what is stored already changes nothing, the version neither.
    """

    def __init__(self, runner: Runner, keys: Keys, clock: Clock) -> None:
        self._runner, self._keys, self._clock = runner, keys, clock

    async def version(self) -> int:
        return await self._runner.read(_version)

    async def snapshot(self) -> DirectorySnapshot:
        now = self._clock.now()  # a rotated key stays good until the moment it is retired
        return await self._runner.read(lambda conn: _snapshot(conn, now))

    async def put_party(self, party: Party) -> Party:
        return await self._runner.write(lambda conn: _store_party(conn, party))

    async def put_key(self, key: PartyKey) -> None:
        await self._runner.write(lambda conn: _store(conn, _put_key, party_keys, asdict(key)))

    async def put_app(self, app: App) -> None:
        row = asdict(app) | {"app_class": app.app_class.value}
        await self._runner.write(lambda conn: _store(conn, _put_app, apps, row))

    async def put_agreement(self, agreement: Agreement) -> None:
        row = asdict(agreement) | {"purpose": agreement.purpose.value}
        await self._runner.write(lambda conn: _store(conn, _put_agreement, agreements, row))

    async def put_subscription(self, subscription: Subscription) -> None:
        await self._runner.write(lambda conn: _store_subscription(conn, self._keys, subscription))

    async def put_policy(self, policy: Mapping[str, Any]) -> None:
        await self._runner.write(lambda conn: _store_policy(conn, dict(policy)))


# ---- writing ---------------------------------------------------------------------------------------------------


def _take_turns(conn: Connection) -> None:
    """Whoever changes the directory waits here for another process that does (SQLite has one writer anyway)."""
    conn.execute(select(directory_state.c.version).with_for_update())


def _raise_version(conn: Connection) -> None:
    conn.execute(update(directory_state).values(version=directory_state.c.version + 1))
    changed(conn)


def _store(conn: Connection, put: Upsert, table: Table, row: dict[str, Any]) -> None:
    _take_turns(conn)
    if _stored(conn, table, row) != row:
        put.run(conn, [row])
        _raise_version(conn)


def _stored(conn: Connection, table: Table, row: Mapping[str, Any]) -> dict[str, Any] | None:
    key = and_(*(column == row[column.name] for column in table.primary_key.columns))
    found = conn.execute(select(table).where(key)).first()
    return None if found is None else dict(found._mapping)


def _store_party(conn: Connection, party: Party) -> Party:
    _take_turns(conn)
    if party.role is Role.carrier and party.carrier_no == 0:
        party = replace(party, carrier_no=_carrier_no(conn, party.party_id))
    row = asdict(party) | {
        "role": party.role.value,
        "block_holders": list(party.block_holders),
        "acting_for": list(party.acting_for),
    }
    _store(conn, _put_party, parties, row)
    return party


def _carrier_no(conn: Connection, party_id: str) -> int:
    """The number this carrier has, or the next free one. A number once given is never given again."""
    known = conn.scalar(select(parties.c.carrier_no).where(parties.c.party_id == party_id))
    return known or 1 + (conn.scalar(select(func.max(parties.c.carrier_no))) or 0)


def _store_subscription(conn: Connection, keys: Keys, subscription: Subscription) -> None:
    number = keys.subscriptions(conn, [subscription.subscription_id])[subscription.subscription_id]
    row = {
        "subscription_no": number,
        "subscription_id": subscription.subscription_id,
        "subscriber_id": subscription.subscriber_id,
        "app_id": subscription.app_id,
        "app_class": subscription.app_class.value,
        "purpose": subscription.purpose.value,
        "event_mask": sum(1 << event.number for event in subscription.event_types),
        "lane_mask": sum(1 << LANE_NUMBER[lane] for lane in subscription.lanes),
        "mode": subscription.mode.value,
        "state": subscription.state.value,
        "state_reason": subscription.state_reason,
        "endpoint": subscription.endpoint,
        "created_at": subscription.created_at,
    }
    _take_turns(conn)
    if _stored(conn, subscriptions, row) == row and _secrets(conn, number).get(number, ()) == subscription.secrets:
        return
    _put_subscription.run(conn, [row])
    conn.execute(delete(subscription_secrets).where(subscription_secrets.c.subscription_no == number))
    if subscription.secrets:
        conn.execute(
            insert(subscription_secrets),
            [
                {
                    "subscription_no": number,
                    "place": place,
                    "scheme": secret.scheme,
                    "secret": secret.secret,
                    "created_at": secret.created_at,
                    "expires_at": secret.expires_at,
                }
                for place, secret in enumerate(subscription.secrets)
            ],
        )
    _raise_version(conn)


def _store_policy(conn: Connection, policy: dict[str, Any]) -> None:
    _take_turns(conn)
    if conn.scalar(select(directory_state.c.policy)) != policy:
        conn.execute(update(directory_state).values(policy=policy))
        _raise_version(conn)


# ---- reading ---------------------------------------------------------------------------------------------------


def _version(conn: Connection) -> int:
    return int(conn.scalar(select(directory_state.c.version)) or 0)


def _snapshot(conn: Connection, now: datetime) -> DirectorySnapshot:
    keys: dict[str, list[PartyKey]] = {}
    live_keys = select(party_keys).where(or_(party_keys.c.retired_at.is_(None), party_keys.c.retired_at > now))
    for key in _all(conn, live_keys.order_by(party_keys.c.created_at, party_keys.c.kid), PartyKey):
        keys.setdefault(key.party_id, []).append(key)
    secrets = _secrets(conn)
    live = select(subscriptions).where(subscriptions.c.state != SubscriptionState.deleted.value)
    return DirectorySnapshot(
        version=_version(conn),
        parties={row.party_id: _party(row) for row in conn.execute(select(parties))},
        keys={party_id: tuple(found) for party_id, found in keys.items()},
        apps={
            app.app_id: app for app in _all(conn, select(apps), lambda **row: App(**_enums(row, app_class=AppClass)))
        },
        agreements=tuple(
            _all(
                conn,
                select(agreements).order_by(agreements.c.agreement_id),
                lambda **row: Agreement(**_enums(row, purpose=Purpose)),
            )
        ),
        subscriptions={
            row.subscription_id: _subscription(row, secrets.get(row.subscription_no, ())) for row in conn.execute(live)
        },
        policy=conn.scalar(select(directory_state.c.policy)) or {},
    )


def _all(conn: Connection, query: Select[Any], make: Callable[..., Any]) -> list[Any]:
    return [make(**row) for row in conn.execute(query).mappings()]


def _enums(row: dict[str, Any], **kinds: Callable[[Any], Any]) -> dict[str, Any]:
    return row | {name: kind(row[name]) for name, kind in kinds.items()}


def _party(row: Row[Any]) -> Party:
    return Party(**_enums(dict(row._mapping), role=Role, block_holders=tuple, acting_for=tuple))


def _secrets(conn: Connection, number: int | None = None) -> dict[int, tuple[SigningSecret, ...]]:
    query = select(subscription_secrets).order_by(subscription_secrets.c.place)
    if number is not None:
        query = query.where(subscription_secrets.c.subscription_no == number)
    found: dict[int, tuple[SigningSecret, ...]] = {}
    for row in conn.execute(query):
        secret = SigningSecret(row.scheme, bytes(row.secret), row.created_at, row.expires_at)
        found[row.subscription_no] = (*found.get(row.subscription_no, ()), secret)
    return found


def _subscription(row: Row[Any], secrets: tuple[SigningSecret, ...]) -> Subscription:
    return Subscription(
        subscription_id=row.subscription_id,
        subscriber_id=row.subscriber_id,
        app_id=row.app_id,
        app_class=AppClass(row.app_class),
        purpose=Purpose(row.purpose),
        event_types=_event_types(row.event_mask),
        lanes=_lanes(row.lane_mask),
        mode=DeliveryMode(row.mode),
        state=SubscriptionState(row.state),
        created_at=row.created_at,
        endpoint=row.endpoint,
        secrets=secrets,
        state_reason=row.state_reason,
    )


def _event_types(mask: int) -> frozenset[EventType]:
    return frozenset(event for number, event in BY_NUMBER.items() if mask >> number & 1)


def _lanes(mask: int) -> frozenset[Lane]:
    return frozenset(lane for number, lane in LANE_BY_NUMBER.items() if mask >> number & 1)
