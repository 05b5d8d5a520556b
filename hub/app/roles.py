"""What a process of the hub does, when not everything."""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """Every process follows the log (its own number index) and the directory of parties; beyond that:"""

    api = "api"  # answers HTTP requests, takes in files
    dispatch = "dispatch"  # delivers to webhooks, for the shards of subscriptions it holds
    index = "index"  # keeps the catalogue of chunks in the ledger
    timers = "timers"  # takes up what a process left behind: endpoint proofs, files being validated
    ingress = "ingress"  # takes in what carriers publish to their own topics
    outbox = "outbox"  # publishes answers to topics


WORKER = frozenset(Role) - {Role.api}
EVERYTHING = frozenset(Role)
