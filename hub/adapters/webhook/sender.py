"""The sender: URL to checked address to connection to answer, each step under its own deadline.

Why a client of our own: receivers are untrusted, and none of the clients tried held every hostile case (a bound on raw
bytes, a deadline that a drip cannot stretch, a connection to the very address that was checked, never a silent repeat).
Nothing comes from the environment: no proxies, no cookies, no stored credentials. Redirects are answers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple

from hub.adapters.webhook.client import Connection
from hub.adapters.webhook.deadlines import Deadlines
from hub.adapters.webhook.guard import Address, Guard, Target
from hub.adapters.webhook.pool import HostLimit, Key, Pool
from hub.adapters.webhook.request import receiver_tls_context, request_head, request_opening
from hub.adapters.webhook.resolver import Resolver, SystemResolver
from hub.ports.clock import Clock
from hub.ports.sender import Response, SendError

log = logging.getLogger(__name__)

TOTAL_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 3.0
TLS_SECONDS: Final = 5.0
RESOLVE_SECONDS: Final = 3.0
ADDRESSES_LIVE_SECONDS: Final = 30.0  # how long checked addresses stand before the name is asked again
CONNECTION_LIVES_SECONDS: Final = 300.0  # a certificate is looked at again at the latest after this
ADDRESSES_TRIED: Final = 2


class _Place(NamedTuple):
    """What a URL comes to, worked out once."""

    target: Target
    opening: str  # request line and the sender's own headers
    host: tuple[str, int]
    name: tuple[bool, str, int]


class WebhookSender:
    """Implements `ports.sender.Sender`. Use from one event loop.

    ``allow_loopback`` (development and tests) also lets http:// and any port through to 127.0.0.1, localhost and
    [::1]; everything else stays. ``denied`` are further networks never to be reached: the hub's own addresses.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        allow_loopback: bool = False,
        allow_http: bool = False,
        ports: tuple[int, ...] = (443,),
        denied: tuple[str, ...] = (),
        resolver: Resolver | None = None,
        tls_context: ssl.SSLContext | None = None,
        total_seconds: float = TOTAL_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        tls_seconds: float = TLS_SECONDS,
        resolve_seconds: float = RESOLVE_SECONDS,
        addresses_live_seconds: float = ADDRESSES_LIVE_SECONDS,
        idle_seconds: float = 30.0,
        idle_connections: int = 512,
        per_host: int = 128,
    ) -> None:
        self._clock = clock
        self._guard = Guard(allow_loopback, allow_http, ports, denied)
        self._resolver = resolver or SystemResolver()
        self._tls_context = tls_context or receiver_tls_context()
        self._total, self._connect, self._tls = total_seconds, connect_seconds, tls_seconds
        self._resolve_seconds, self._addresses_live = resolve_seconds, addresses_live_seconds
        self._idle_seconds = idle_seconds
        self._pool = Pool(idle_connections, idle_seconds)
        self._limit = HostLimit(per_host)
        self._keys: dict[tuple[bool, str, int], tuple[float, tuple[Key, ...]]] = {}
        self._place = lru_cache(maxsize=8192)(self._judge)  # urls that were refused are judged anew each time
        self._reaper: asyncio.TimerHandle | None = None
        self._deadlines: Deadlines | None = None
        self._closed = False

    def check_url(self, url: str) -> None:
        """Would this endpoint be accepted? No look-up is made. Raises InvalidRequest."""
        self._guard.check_url(url)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """See `ports.sender.Sender.post`. Raises SendError; ValueError for headers that are none."""
        if self._closed:
            raise SendError("closed", detail="the sender is closed")
        place = self._place(url)
        head = request_head(place.opening, headers, len(body))
        deadline = asyncio.get_running_loop().time() + self._total
        host = place.host
        if not self._limit.try_enter(host):
            await self._turn(host, deadline)
        try:
            key, connection = self._idle(self._known(place)) or await self._new(place, deadline)
            try:
                return await connection.exchange(head, body, deadline)
            finally:
                self._put_back(key, connection)
        finally:
            self._limit.leave(host)

    async def close(self) -> None:
        """Drop every idle connection; requests in flight end with their callers."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        if self._deadlines is not None:
            self._deadlines.close()
        self._pool.clear()
        await self._resolver.close()
        await asyncio.sleep(0)  # lets the transports tell their protocols

    # -- inside ------------------------------------------------------------------------------------------------------

    def _put_back(self, key: Key, connection: Connection) -> None:
        if not connection.reusable or self._closed:
            connection.abort()
            return
        self._pool.put(key, connection, self._clock.monotonic())
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(self._idle_seconds, self._reap)

    def _reap(self) -> None:
        self._pool.reap(self._clock.monotonic())
        loop = asyncio.get_running_loop()
        self._reaper = loop.call_later(self._idle_seconds / 2, self._reap) if len(self._pool) else None

    async def _turn(self, host: tuple[str, int], deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._limit.enter(host)
        except TimeoutError:
            raise SendError("timeout", detail="too many requests to this host are in flight") from None

    def _judge(self, url: str) -> _Place:
        target = self._guard.target(url)
        return _Place(
            target, request_opening(target), (target.host, target.port), (target.tls, target.host, target.port)
        )

    def _known(self, place: _Place) -> tuple[Key, ...]:
        """Where the name leads, as checked lately; empty if it must be asked for."""
        known = self._keys.get(place.name)
        return known[1] if known is not None and self._clock.monotonic() < known[0] else ()

    def _idle(self, keys: tuple[Key, ...]) -> tuple[Key, Connection] | None:
        """A kept connection to one of these addresses."""
        for key in keys:
            found = self._pool.take(key, self._clock.monotonic())
            if found is not None:
                return key, found
        return None

    async def _new(self, place: _Place, deadline: float) -> tuple[Key, Connection]:
        try:
            async with asyncio.timeout_at(deadline):
                keys = self._known(place)
                if not keys:
                    keys = await self._resolve(place)
                    kept = self._idle(keys)  # the name may still lead where a connection is open
                    if kept is not None:
                        return kept
                failure: SendError | None = None
                for key in keys[:ADDRESSES_TRIED]:
                    try:
                        return key, await self._open(place.target, ip_address(key.address))
                    except SendError as error:
                        failure = error
                        if error.kind != "connect":
                            break
                raise failure or SendError("dns", detail="the host has no address")
        except TimeoutError:
            raise SendError("timeout", detail="no connection in time") from None

    async def _resolve(self, place: _Place) -> tuple[Key, ...]:
        """Ask for the name and check every address; what was checked stands for a while."""
        target = place.target
        addresses, until = target.fixed, float("inf")
        if not addresses:
            self._keys.pop(place.name, None)
            try:
                async with asyncio.timeout(self._resolve_seconds):
                    found = await self._resolver.resolve(target.host, target.port)
            except TimeoutError:
                raise SendError("dns", detail="no answer from the name server in time") from None
            addresses = self._guard.check_addresses(found)
            until = self._clock.monotonic() + self._addresses_live
        if len(self._keys) >= 4096:
            self._keys.pop(next(iter(self._keys)))
        keys = tuple(Key(target.tls, target.host, target.port, str(address)) for address in addresses)
        self._keys[place.name] = until, keys
        return keys

    async def _open(self, target: Target, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        if self._deadlines is None:
            self._deadlines = Deadlines(loop)
        connection = Connection(loop, address, self._deadlines)
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._connect):
                await loop.sock_connect(sock, (str(address), target.port))
            if ip_address(sock.getpeername()[0]) != address:
                raise SendError("address_refused", detail="connected to another address than the checked one")
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise SendError("connect", detail="no connection in time") from None
            if isinstance(error, OSError):
                raise SendError("connect", detail=type(error).__name__) from None
            raise
        try:
            plain, _ = await loop.create_connection(lambda: connection, sock=sock)
        except BaseException:
            if connection.owns_socket:
                connection.abort()  # a socket that a transport owns is never closed behind its back
            else:
                sock.close()
            raise
        now = self._clock.monotonic()
        connection.good_until = now + CONNECTION_LIVES_SECONDS
        if target.tls:
            await self._secure(connection, plain, target.server_name, now)
        return connection

    async def _secure(self, connection: Connection, plain: asyncio.Transport, name: str, now: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._tls):
                secured = await loop.start_tls(plain, connection, self._tls_context, server_hostname=name)
        except BaseException as error:
            plain.abort()
            if isinstance(error, TimeoutError):
                raise SendError("tls", detail="no handshake in time") from None
            if isinstance(error, ssl.SSLCertVerificationError):
                detail = f"{error.verify_code} {error.verify_message}"
                raise SendError("tls_certificate", detail=detail) from None
            if isinstance(error, ssl.SSLError):
                raise SendError("tls", detail=error.reason or "handshake failed") from None
            if isinstance(error, OSError):
                raise SendError("tls", detail=type(error).__name__) from None
            raise
        if secured is None:
            plain.abort()
            raise SendError("closed", detail="closed during the handshake")
        connection.upgrade(secured)
        certificate = secured.get_extra_info("peercert") or {}
        if "notAfter" in certificate:  # a kept connection does not outlive its certificate
            left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - self._clock.now().timestamp()
            connection.good_until = min(connection.good_until, now + left)
