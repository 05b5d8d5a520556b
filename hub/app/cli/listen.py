"""``numhub listen``: a subscription's events on a laptop, without a public address.

Pulls the feed and posts every event to a local URL as the hub itself would: the same body, Standard Webhooks headers
made with a secret of this session. A page is committed once the local URL answered 2xx to all of it; whatever fails is
tried again, so nothing is lost by stopping in between.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import typer
from numhub_client import AsyncClient, Chunk, NumhubError, PrivateKey
from numhub_client.errors import ConnectionFailed
from numhub_client.webhooks import sign
from rich.console import Console
from rich.markup import escape

from hub.adapters.system.clock import SystemClock
from hub.app.cli._open import fail
from hub.domain.numbers import mask
from hub.ports.clock import Clock

POST_WITHIN = 30.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Forwarder:
    """Posts events to one local URL until each was answered 2xx. ``say`` gets one line per attempt, numbers masked."""

    local: httpx.AsyncClient
    forward: str
    secret: str
    clock: Clock
    say: Say

    async def deliver(self, subscription_id: str, event: dict[str, Any], chunk: Chunk | None, body: bytes) -> None:
        pause = FIRST_PAUSE
        event_id = str(event.get("id"))
        while True:
            began = self.clock.monotonic()
            problem = await self._post(subscription_id, event_id, chunk, body)
            took = self.clock.monotonic() - began
            line = f"{_what(event, chunk)}  {event_id[:16]}  {took * 1000:.0f} ms"
            if problem is None:
                self.say(f"[green]ok[/green]    {line}")
                return
            self.say(f"[red]{escape(problem)}[/red]  {line}, again in {pause:.0f} s")
            await self.clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _post(self, subscription_id: str, event_id: str, chunk: Chunk | None, body: bytes) -> str | None:
        """None for a 2xx; else what went wrong, in a word."""
        digest = hashlib.sha256(f"{subscription_id}|{event_id}".encode()).hexdigest()
        headers = sign(self.secret, f"msg_{digest[:32]}", self.clock.now(), body)
        headers["content-type"] = "application/cloudevents+json"
        if chunk is not None:
            headers["numhub-chunk-id"] = chunk.chunk_id
            headers["numhub-event-type"] = chunk.event_type
            headers["numhub-lane"] = chunk.lane
        try:
            answer = await self.local.post(self.forward, content=body, headers=headers)
        except httpx.HTTPError as error:
            return type(error).__name__
        return None if answer.is_success else str(answer.status_code)


async def forward_feed(
    client: AsyncClient, subscription_id: str, forwarder: Forwarder, *, follow: bool = True, wait_seconds: int = 20
) -> int:
    """Forward until cancelled, or with ``follow=False`` until the feed's end; returns the number of events forwarded.

    A hub that cannot be reached for a while is waited for; errors that waiting does not heal are raised (NumhubError).
    """
    done = 0
    while True:
        pages = client.feed.pages(subscription_id, follow=follow, wait_seconds=wait_seconds, max_numbers=10_000)
        try:
            async for page in pages:
                for event, message, body in zip(page.events, page.messages, page.bodies(), strict=True):
                    chunk = message if isinstance(message, Chunk) else None
                    await forwarder.deliver(subscription_id, dict(event), chunk, body)
                    done += 1
            return done
        except NumhubError as error:
            if not error.retriable or not follow:
                raise
            forwarder.say(f"[yellow]{escape(error.code)}[/yellow]  waiting for the hub")
            await forwarder.clock.sleep(LONGEST_PAUSE / 6)


def new_session_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode("ascii")


def _what(event: dict[str, Any], chunk: Chunk | None) -> str:
    if chunk is None:
        return escape(str(event.get("type")))
    more = f" and {len(chunk) - 1} more" if len(chunk) > 1 else ""
    return f"{escape(chunk.event_type):<18} {escape(chunk.lane):<4} {mask(chunk.numbers[0])}{more}"


def listen(
    subscription: Annotated[str, typer.Option("--subscription", help="id of a subscription of mode pull")],
    forward: Annotated[str, typer.Option("--forward", help="local URL, e.g. http://127.0.0.1:9000/hook")],
    client_id: Annotated[str, typer.Option("--client-id", help="your party id")],
    key: Annotated[Path, typer.Option("--key", help="your private key: JWK, or PEM with --kid", exists=True)],
    url: Annotated[str, typer.Option("--url", envvar="NUMHUB_URL", help="the hub")] = "http://127.0.0.1:8080",
    kid: Annotated[str | None, typer.Option("--kid", help="the key's id, where the file does not say it")] = None,
    secret: Annotated[
        str | None, typer.Option("--secret", envvar="NUMHUB_LISTEN_SECRET", help="whsec_ to sign with; else a new one")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="stop at the feed's end")] = False,
) -> None:
    """Forward a subscription's events to a URL on this machine, signed like webhooks."""
    console = Console(highlight=False, soft_wrap=True)
    if urlsplit(forward).scheme not in ("http", "https") or not urlsplit(forward).hostname:
        raise typer.BadParameter("an http or https URL is needed", param_hint="--forward")
    try:
        credentials = PrivateKey.load(key, client_id, kid=kid)
    except OSError as error:
        raise fail(f"{key}: {error.strerror or error}") from None
    except ValueError as error:
        raise fail(str(error)) from None
    session_secret = secret or new_session_secret()
    try:
        sign(session_secret, "msg_0", SystemClock().now(), b"")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--secret") from None

    async def run() -> int:
        async with (
            AsyncClient(url, credentials) as client,
            httpx.AsyncClient(timeout=POST_WITHIN, follow_redirects=False) as local,
        ):
            forwarder = Forwarder(local, forward, session_secret, SystemClock(), console.print)
            return await forward_feed(client, subscription, forwarder, follow=not once)

    console.print(f"forwarding {escape(subscription)} to {escape(forward)}")
    console.print(f"verify with [bold]{session_secret}[/bold]")
    try:
        console.print(f"{asyncio.run(run())} events forwarded")
    except KeyboardInterrupt:
        console.print("stopped; what was not answered 2xx comes again")
    except ConnectionFailed as error:
        raise fail(f"{url}: {error}") from None
    except NumhubError as error:
        raise fail(str(error)) from None
