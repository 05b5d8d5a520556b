"""Who may take part: parties, their keys, apps and agreements.

In comes what an operator decided; out goes one change of the directory, which every process sees within about a
second. Private keys never pass through here: parties are known by public keys, sandboxes also by the digest of a
secret that is shown once.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

from hub.domain.errors import InvalidRequest, NotFound, RuleError
from hub.domain.events import Purpose
from hub.domain.parties import Agreement, App, AppClass, Party, PartyKey, Role
from hub.domain.policies import Policy
from hub.flow.members import ANY_CARRIER, Members
from hub.ports.clock import Clock
from hub.ports.ledger import Directory
from hub.ports.tokens import KeyReader

log = logging.getLogger("numhub.enrol")

MAX_OVERLAP = timedelta(days=30)
HOLDERS = frozenset(
    ("cmcc", "cucc", "ctcc", "cbn", "mvno:cmcc", "mvno:cucc", "mvno:ctcc", "mvno:cbn")
)  # as in the numbering plan

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What enrolment made. ``client_secret`` is there for sandboxes only and is not kept anywhere."""

    party: Party
    kids: tuple[str, ...] = ()
    client_secret: str | None = field(default=None, repr=False)


class Enrol:
    """All changes of the directory that operators make. ``random`` must be unpredictable (``SystemRandom``)."""

    def __init__(
        self, directory: Directory, members: Members, clock: Clock, random: Random, keys: KeyReader | None = None
    ) -> None:
        self._directory = directory
        self._members = members
        self._clock = clock
        self._random = random
        self._keys = keys

    async def add_party(
        self,
        role: Role,
        party_id: str,
        name: str,
        *,
        keys: Sequence[Mapping[str, Any]] = (),
        block_holders: Sequence[str] = (),
        acting_for: Sequence[str] = (),
        sandbox: bool = False,
        coverage_since: datetime | None = None,
    ) -> Enrolled:
        """Enrol a party under an id of its own choice. ``keys`` are public JWKs.

        ``block_holders`` empty lets a carrier publish any block; ``acting_for`` are MVNOs whose files it sends;
        ``coverage_since`` is the day from which a carrier's events are complete. A sandbox is given a client secret.
        Raises RuleError if the id is taken, InvalidRequest for anything malformed.
        """
        await self._members.refresh()
        _slug(party_id)
        if not 1 <= len(name.strip()) <= 200:
            raise InvalidRequest("A name of 1 to 200 characters is needed.")
        if party_id in self._members.snapshot.parties:
            raise RuleError(f"There is a party {party_id} already.", code="party_exists")
        if role is not Role.carrier and (block_holders or acting_for or coverage_since):
            raise InvalidRequest("Block holders, acting-for and coverage belong to carriers only.")
        unknown = sorted(set(block_holders) - HOLDERS)
        if unknown:
            raise InvalidRequest(f"No such block holder: {unknown[0]}. Known: {', '.join(sorted(HOLDERS))}.")
        for mvno in acting_for:
            if (known := self._members.party(mvno)) is None or known.role is not Role.carrier:
                raise InvalidRequest(f"{mvno} is no enrolled carrier; enrol the MVNO first.")
        read = [self._read(jwk) for jwk in keys]
        secret = self._random.randbytes(32).hex() if sandbox else None
        now = self._clock.now()
        party = await self._directory.put_party(
            Party(
                party_id=party_id,
                role=role,
                name=name.strip(),
                created_at=now,
                sandbox=sandbox,
                client_secret_hash=f"sha256${hashlib.sha256(secret.encode()).hexdigest()}" if secret else None,
                block_holders=tuple(block_holders),
                acting_for=tuple(acting_for),
                coverage_since=coverage_since,
            )
        )
        for kid, jwk in read:
            await self._directory.put_key(PartyKey(party_id, kid, jwk, now))
        await self._members.refresh()
        log.info("party_enrolled", extra={"party": party_id, "role": role.value})
        return Enrolled(party, tuple(kid for kid, _ in read), secret)

    async def set_policy(self, changes: Mapping[str, Any]) -> Policy:
        """Change the members of the policy that ``changes`` names (see `Policy.to_mapping`); the rest stays as it is.
        Raises InvalidRequest naming the value that is wrong."""
        values = {**self._members.snapshot.policy, **changes}
        policy = Policy.from_mapping(values)
        await self._directory.put_policy(values)
        log.info("policy_changed", extra={"changed": sorted(changes), "clearance": policy.clearance.value})
        return policy

    async def suspend(self, party_id: str) -> Party:
        """Stop a party everywhere: no token is good any more, nothing is delivered; its cursors stand still."""
        return await self._set_suspended(party_id, True)

    async def resume(self, party_id: str) -> Party:
        return await self._set_suspended(party_id, False)

    async def rotate_key(self, party_id: str, jwk: Mapping[str, Any], *, overlap: timedelta = timedelta(days=1)) -> str:
        """Register a new public key; older ones stay good for ``overlap`` (0 to 30 days). Returns the kid."""
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise InvalidRequest("The overlap must lie between 0 and 30 days.")
        await self._party(party_id)
        kid, public = self._read(jwk)
        now = self._clock.now()
        known = self._members.snapshot.keys.get(party_id, ())
        if any(key.kid == kid for key in known):
            raise RuleError("This key is registered already; make a new one.", code="key_exists")
        # the new key first: killed in between, the party still has a way in
        await self._directory.put_key(PartyKey(party_id, kid, public, now))
        for key in known:
            ends = min(filter(None, (key.retired_at, now + overlap)))
            await self._directory.put_key(replace(key, retired_at=ends))
        await self._members.refresh()
        log.info("party_key_rotated", extra={"party": party_id})
        return kid

    async def add_app(self, app_id: str, subscriber_id: str, app_class: AppClass, name: str) -> App:
        """Raises RuleError if the id is taken, NotFound if there is no such subscriber."""
        _slug(app_id)
        if not 1 <= len(name.strip()) <= 200:
            raise InvalidRequest("A name of 1 to 200 characters is needed.")
        party = await self._party(subscriber_id)
        if party.role is not Role.subscriber:
            raise RuleError(f"{subscriber_id} is no subscriber.", code="wrong_role")
        if app_id in self._members.snapshot.apps:
            raise RuleError(f"There is an app {app_id} already.", code="app_exists")
        app = App(app_id, subscriber_id, app_class, name.strip(), self._clock.now())
        await self._directory.put_app(app)
        await self._members.refresh()
        return app

    async def add_agreement(
        self,
        subscriber_id: str,
        *,
        pia_ref: str,
        carrier_id: str = ANY_CARRIER,
        purpose: Purpose = Purpose.account_unbind,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> Agreement:
        """The basis on which a carrier's events (``*``: every carrier's) reach a subscriber. ``pia_ref`` names the
        personal information impact assessment it rests on. Begins now and lasts a year unless said otherwise."""
        if (await self._party(subscriber_id)).role is not Role.subscriber:
            raise RuleError(f"{subscriber_id} is no subscriber.", code="wrong_role")
        if carrier_id != ANY_CARRIER and (await self._party(carrier_id)).role is not Role.carrier:
            raise RuleError(f"{carrier_id} is no carrier.", code="wrong_role")
        now = self._clock.now()
        starts = starts_at or now
        ends = ends_at or starts + timedelta(days=365)
        if ends <= starts:
            raise InvalidRequest("An agreement must end after it starts.")
        if not 1 <= len(pia_ref.strip()) <= 200:
            raise InvalidRequest("A reference to the impact assessment (1 to 200 characters) is needed.")
        agreement_id = f"agr_{self._random.randbytes(8).hex()}"
        agreement = Agreement(agreement_id, carrier_id, subscriber_id, purpose, pia_ref.strip(), starts, ends, now)
        await self._directory.put_agreement(agreement)
        await self._members.refresh()
        return agreement

    async def end_agreement(self, agreement_id: str) -> Agreement:
        """Nothing more is delivered on its basis from now on; ended twice, the first end stands."""
        await self._members.refresh()
        for agreement in self._members.snapshot.agreements:
            if agreement.agreement_id == agreement_id:
                now = self._clock.now()
                if agreement.ends_at <= now:
                    return agreement
                ended = replace(agreement, starts_at=min(agreement.starts_at, now), ends_at=now)
                await self._directory.put_agreement(ended)
                await self._members.refresh()
                return ended
        raise NotFound(f"There is no agreement {agreement_id}.")

    async def _set_suspended(self, party_id: str, suspended: bool) -> Party:
        party = await self._directory.put_party(replace(await self._party(party_id), suspended=suspended))
        await self._members.refresh()
        log.info("party_suspended" if suspended else "party_resumed", extra={"party": party_id})
        return party

    async def _party(self, party_id: str) -> Party:
        await self._members.refresh()
        party = self._members.party(party_id)
        if party is None:
            raise NotFound(f"There is no party {party_id}.")
        return party

    def _read(self, jwk: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        if self._keys is None:
            raise RuntimeError("Enrol was built without a key reader")
        return self._keys.public(jwk)


def _slug(text: str) -> None:
    if not _SLUG.fullmatch(text):
        raise InvalidRequest("An id is 2 to 63 characters: lower case, digits, dot, dash, underscore.")
