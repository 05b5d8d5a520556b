"""Which URLs and which addresses the hub will send to (RELIABILITY.md section 5, guard rules 2 and 4).

The URL is read by one strict pattern instead of a forgiving parser: what two parsers could read in two ways is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from hub.domain.errors import InvalidRequest
from hub.ports.sender import SendError

Address = IPv4Address | IPv6Address

_DENIED_V4: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_PUBLIC_V6: Final = IPv6Network("2000::/3")
_DENIED_V6: Final = tuple(ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))

_URL: Final = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://"
    r"(?P<host>[A-Za-z0-9.-]{1,253}|\[::1\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[A-Za-z0-9\-._~:/@!$&'()*+,;=%]*)?"
    r"(?P<query>\?[A-Za-z0-9\-._~:/?@!$&'()*+,;=%]*)?"
)
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])")
"""A dotted name whose last label starts with a letter: no number, octal, hex or short form of an address fits."""

_LOOPBACK: Final = {
    "127.0.0.1": (ip_address("127.0.0.1"),),
    "[::1]": (ip_address("::1"),),
    "localhost": (ip_address("127.0.0.1"), ip_address("::1")),
}
MAX_URL: Final = 2048


@dataclass(frozen=True, slots=True)
class Target:
    """Where one URL leads. ``fixed`` are the addresses of a loopback host (development only); else DNS is asked."""

    tls: bool
    host: str  # lower case; as in SNI, the certificate and the Host header
    port: int
    path: str  # with the query; never empty
    fixed: tuple[Address, ...] = ()

    @property
    def authority(self) -> str:
        return self.host if self.port == (443 if self.tls else 80) else f"{self.host}:{self.port}"

    @property
    def server_name(self) -> str:
        return self.host.strip("[]")


@dataclass(frozen=True, slots=True)
class Guard:
    """``denied`` are networks refused on top of rule 4, e.g. the hub's own public addresses."""

    allow_loopback: bool = False
    allow_http: bool = False
    ports: tuple[int, ...] = (443,)
    denied: tuple[str, ...] = ()
    _networks: tuple[object, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_networks", tuple(ip_network(text) for text in self.denied))

    def target(self, url: str) -> Target:
        """Read and judge a URL without any look-up. Raises SendError("bad_url")."""
        found = _URL.fullmatch(url) if len(url) <= MAX_URL else None
        if found is None:
            raise SendError("bad_url", detail="write https://host/path, host name in ASCII (xn-- form), no user, no #")
        tls = len(found["scheme"]) == 5
        host = found["host"].lower()
        port = int(found["port"] or (443 if tls else 80))
        path = (found["path"] or "/") + (found["query"] or "")
        if port > 65_535:
            raise SendError("bad_url", detail="no such port")
        if host in _LOOPBACK and self.allow_loopback:
            return Target(tls, host, port, path, _LOOPBACK[host])
        if not _NAME.fullmatch(host) or len(host) > 253:
            raise SendError("bad_url", detail="the host must be a full domain name, not an address")
        if not tls and not self.allow_http:
            raise SendError("bad_url", detail="https is required")
        if port not in self.ports:
            raise SendError("bad_url", detail=f"port {port} is not allowed")
        return Target(tls, host, port, path)

    def check_url(self, url: str) -> None:
        """For the moment of subscription: the same judgement, as an error the caller of the API can read."""
        try:
            self.target(url)
        except SendError as refused:
            raise InvalidRequest(f"The endpoint cannot be used: {refused.detail}.", code="endpoint_refused") from None

    def check_addresses(self, texts: Iterable[str]) -> tuple[Address, ...]:
        """All addresses of a host, if **every** one is public; one bad address refuses the host.

        Raises SendError("address_refused"), or ("dns") for none at all.
        """
        addresses: list[Address] = []
        for text in texts:
            try:
                address = ip_address(text)
            except ValueError:
                raise SendError("dns", detail="the resolver gave something that is no address") from None
            if not self.is_public(address):
                raise SendError("address_refused", detail="the host has an address that is not public")
            if address not in addresses:
                addresses.append(address)
        if not addresses:
            raise SendError("dns", detail="the host has no address")
        return tuple(addresses)

    def is_public(self, address: Address) -> bool:
        if isinstance(address, IPv4Address):
            refused: tuple[object, ...] = _DENIED_V4
        elif address not in _PUBLIC_V6 or address.scope_id is not None:
            return False
        else:
            refused = _DENIED_V6
        return not any(address in network for network in (*refused, *self._networks))  # type: ignore[operator]
