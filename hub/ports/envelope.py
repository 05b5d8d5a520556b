"""How a record is dressed for one receiver: headers, signature, body."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from hub.domain.parties import SigningSecret, Subscription

Request = tuple[dict[str, str], bytes]
"""Headers and body of one POST, ready to be sent."""


class Envelope(Protocol):
    """Pure and fast (a hash over the body at most). Signed with every secret that is live at ``now``."""

    def chunk(
        self,
        subscription: Subscription,
        *,
        chunk_id: str,
        event_type: str,
        lane: str,
        count: int,
        reported_at: int,
        plain: bytes,
        now: datetime,
        superseded: str = "",
    ) -> Request:
        """``plain`` as it stands (full mode), or a small pointer to it. ``reported_at`` in epoch seconds.

        ``superseded`` names rows whose order was withdrawn meanwhile: it travels as a header, the body stays as it is.
        """
        ...

    def proof(self, subscription: Subscription, *, proof_id: str, challenge: str, now: datetime) -> Request:
        """Asks an endpoint to answer ``{"challenge": challenge}``."""
        ...

    def test_event(self, subscription: Subscription, *, event_id: str, now: datetime) -> Request:
        """An event that asks for nothing."""
        ...


class SecretMaker(Protocol):
    """Makes a fresh signing secret: key material for the hub, and the text that is shown to the receiver once."""

    def __call__(self, scheme: str, now: datetime) -> tuple[SigningSecret, str]: ...
