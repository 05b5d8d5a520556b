"""A webhook receiver in three lines: verify, unbind, acknowledge.

Any web framework will do: hand `handle` the request's headers and its body's bytes, and answer with what it returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from numhub_client import Chunk, Client, Guard, NumberEvent, Outcome, Receiver, unbind_all
from numhub_client.errors import WebhookError
from numhub_client.webhooks import Pointer, Proof

ACCOUNTS: dict[int, datetime] = {}  # number -> since when it is bound to an account of yours
GUARD = Guard()  # in production Guard.sqlite(...), or a store of your own beside the accounts


def unbind(event: NumberEvent) -> Outcome:
    """Unbind what was bound before the cutoff, and nothing else."""
    bound_at = ACCOUNTS.get(event.number)
    if bound_at is None:
        return None  # the default answer: no_account
    if event.event_type == "deactivated":
        return "soft_locked"  # no login by SMS code from now on; do not unbind yet
    if not event.orders_unbind:
        return None  # restored, released, ..: nothing to answer
    if not event.covers(bound_at):
        return "rejected_cutoff"  # bound since: it is the new holder's
    del ACCOUNTS[event.number]
    return "unbound"


def handle(receiver: Receiver, client: Client, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
    """One request in, (status, JSON body) out. An exception means 500, and the hub comes again."""
    try:
        message = receiver.open(headers, body)
    except WebhookError:
        return 400, ""
    match message:
        case Proof():
            return 200, json.dumps(message.answer())
        case Pointer():
            message = client.chunks.get(None, message)
    if isinstance(message, Chunk):
        answer = unbind_all(message, unbind, guard=GUARD)
        client.acks.send(answer)
        receiver.done(headers)
    return 200, ""
