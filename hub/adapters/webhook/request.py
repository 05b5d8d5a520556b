"""What every request to a receiver begins with: TLS rules, request line, headers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from hub.adapters.webhook.guard import Target

_OWN_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def receiver_tls_context() -> ssl.SSLContext:
    """TLS 1.2 or newer, HTTP/1.1 only, the machine's trusted roots; no key log, whatever the environment says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    return context


def request_opening(target: Target) -> str:
    """Request line and the headers the sender itself states."""
    return f"POST {target.path} HTTP/1.1\r\nhost: {target.authority}\r\naccept-encoding: identity\r\n"


def request_head(opening: str, headers: Mapping[str, str], length: int) -> bytes:
    """Raises ValueError for names and values that could split the request or take over what the sender states."""
    _check_names(tuple(headers))
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header value holds a line break or a zero byte")
    return f"{opening}{lines}content-length: {length}\r\n\r\n".encode("ascii")


@lru_cache(maxsize=256)
def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not name or not _TOKEN.issuperset(name) or name.lower() in _OWN_HEADERS:
            raise ValueError(f"header {name[:40]!r} may not be set")
