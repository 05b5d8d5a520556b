"""numhub_client: hear from the hub when a phone number changes hands, and say what you did about it.

Carriers publish (`Client.batches`, `Client.events`), apps receive (`Receiver` for webhooks, `run_pull` for the feed),
unbind (`unbind_all`) and answer (`Client.acks`). Errors stand in ``numhub_client.errors``, values in
``numhub_client.models``, webhooks in ``numhub_client.webhooks``, and a hub for your tests in
``numhub_client.testing``.
"""

from __future__ import annotations

from numhub_client._answer import Answer
from numhub_client._async import AsyncClient
from numhub_client._auth import ClientSecret, PrivateKey
from numhub_client._chunk import Chunk, NumberEvent
from numhub_client._flow import Retry
from numhub_client._guard import Guard
from numhub_client._receive import Outcome, run_pull, run_pull_async, unbind_all
from numhub_client._sync import Client
from numhub_client.errors import NumhubError
from numhub_client.models import Event
from numhub_client.webhooks import Receiver

__all__ = [
    "Answer",
    "AsyncClient",
    "Chunk",
    "Client",
    "ClientSecret",
    "Event",
    "Guard",
    "NumberEvent",
    "NumhubError",
    "Outcome",
    "PrivateKey",
    "Receiver",
    "Retry",
    "run_pull",
    "run_pull_async",
    "unbind_all",
]
__version__ = "0.1.0"
