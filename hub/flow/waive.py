"""A waiver: a regulator's signed word that some answers are not waited for.

In: a statement (compact JWS) signed with a key that the caller has registered. Out: a waiver in the ledger, with the
statement itself as evidence. Guaranteed: a statement counts once, and only for some minutes after it was signed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from hub.domain.errors import Forbidden, InvalidRequest, RuleError
from hub.domain.lifecycle import from_epoch
from hub.domain.parties import Principal, Role
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger, Waiver
from hub.ports.tokens import Statements

FRESH_WITHIN = timedelta(minutes=5)
VERSION = "numhub/v1"

_NEEDED = ("waiver", "subscriber_id", "person", "reason", "iat", "jti")
_OPTIONAL = ("batch_id", "ends_at")
_JTI = re.compile(r"[\x21-\x7e]{8,128}")


class Waive:
    def __init__(self, ledger: Ledger, members: Members, statements: Statements, clock: Clock) -> None:
        self._ledger, self._members, self._statements, self._clock = ledger, members, statements, clock

    async def issue(self, party_id: str, statement: str) -> Waiver:
        """Put the waiver that ``statement`` makes. The same statement again gives the same waiver.

        Raises InvalidRequest (``invalid_statement``: form, signature, age, an unknown subscriber or batch), Forbidden,
        RuleError (``statement_reused``: the jti was used for another statement).
        """
        await self._members.refresh()
        snapshot = self._members.snapshot
        party = snapshot.parties.get(party_id)
        if party is None or party.role is not Role.regulator or party.suspended:
            raise Forbidden("Only a regulator may waive.")
        claims = self._statements.verify(statement, snapshot.keys.get(party_id, ()))
        waiver = self._read(party_id, statement, claims)
        for known in await self._ledger.waivers():
            if known.waiver_id == waiver.waiver_id:
                if known.statement == statement:
                    return known
                raise RuleError("This jti was used for another statement.", code="statement_reused")
        if abs(self._clock.now() - waiver.issued_at) > FRESH_WITHIN:
            raise _wrong("iat must lie within five minutes of now")
        subscriber = snapshot.parties.get(waiver.subscriber_id)
        if subscriber is None or subscriber.role is not Role.subscriber:
            raise _wrong("no subscriber has this subscriber_id")
        if waiver.batch_id is not None and await self._ledger.batch(waiver.batch_id) is None:
            raise _wrong("no batch has this batch_id")
        if waiver.ends_at is not None and waiver.ends_at <= self._clock.now():
            raise _wrong("ends_at lies in the past")
        await self._ledger.put_waiver(waiver)
        return waiver

    async def visible_to(self, caller: Principal) -> list[Waiver]:
        """Every waiver ever made, the ended ones too, oldest first; a subscriber sees those that concern it.

        Raises Forbidden for carriers: which subscriber is waived is none of theirs, they see the ids that counted.
        """
        if caller.role is Role.carrier:
            raise Forbidden("Waivers name subscribers; a clearance lists the ids that counted.")
        waivers = await self._ledger.waivers()
        if caller.role is Role.subscriber:
            return [waiver for waiver in waivers if waiver.subscriber_id == caller.party_id]
        return waivers

    def _read(self, party_id: str, statement: str, claims: Mapping[str, Any]) -> Waiver:
        if claims.get("waiver") != VERSION or not set(_NEEDED) <= claims.keys() <= {*_NEEDED, *_OPTIONAL, "iss"}:
            raise _wrong(f"its claims are waiver ({VERSION}), {', '.join(_NEEDED[1:])}; optional: batch_id, ends_at")
        if claims.get("iss", party_id) != party_id:
            raise _wrong("iss is not you")
        jti = _text(claims, "jti", 128)
        if not _JTI.fullmatch(jti):
            raise _wrong("jti must be 8 to 128 printable characters")
        return Waiver(
            waiver_id="wai_" + hashlib.sha256(f"{party_id}|{jti}".encode()).hexdigest()[:24],
            subscriber_id=_text(claims, "subscriber_id", 63),
            batch_id=_text(claims, "batch_id", 80) if claims.get("batch_id") is not None else None,
            person=_text(claims, "person", 100),
            reason=_text(claims, "reason", 500),
            issued_by=party_id,
            issued_at=_moment(claims, "iat"),
            statement=statement,
            ends_at=_moment(claims, "ends_at") if claims.get("ends_at") is not None else None,
        )


def _text(claims: Mapping[str, Any], name: str, longest: int) -> str:
    value = claims[name]
    if not isinstance(value, str) or not 0 < len(value.strip()) <= len(value) <= longest or not value.isprintable():
        raise _wrong(f"{name} must be a text of 1 to {longest} printable characters")
    return value


def _moment(claims: Mapping[str, Any], name: str) -> datetime:
    """A NumericDate (RFC 7519): seconds since 1970."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 4_102_444_800:
        raise _wrong(f"{name} must be whole seconds since 1970")
    return from_epoch(value)


def _wrong(why: str) -> InvalidRequest:
    return InvalidRequest(f"The statement does not count: {why}.", code="invalid_statement")
