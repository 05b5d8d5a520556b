"""Which URLs and addresses the sender refuses before any byte leaves."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hub.adapters.webhook.guard import Guard
from hub.domain.errors import InvalidRequest
from hub.ports.sender import SendError

ODD_URLS = [
    "https://127.0.0.1/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::1]/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://\uff11\uff12\uff17.0.0.1/",  # full-width digits
    "https://\u2460\u2461.example.com/",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com#@127.0.0.1/",
    "https://example.com/#x",
    "https://example.com\\@127.0.0.1/",
    "https://example.com\\.evil.test/",
    "https://example.com./",
    "https://.example.com/",
    "https://exa..mple.com/",
    "https://\u0435xample.com/",  # Cyrillic look-alike
    "https://example.com:22/",
    "https://example.com:25/",
    "https://example.com:8443/",
    "https://example.com:0443/",
    "https://example.com:99999/",
    "https://example.com:/",
    "https://localhost/",
    "https://intranet/",
    "https://example.123/",
    "https://-bad.example.com/",
    "https://ex_ample.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 130 + "com/",
    "https://example.com/" + "a" * 2100,
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "https:/example.com/",
    "https:///example.com/",
    "//example.com/",
    "https://example.com/a b",
    "https://example.com/a\r\nhost: b",
    "https://example.com/\n",
    "https://example.com/\u4e2d",
    " https://example.com/",
    "https://example.com\t/",
    "https://[fe80::1%25eth0]/",
    "",
]


NOT_PUBLIC = """
64:ff9b::7f00:1 2002:7f00:1:: ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 fec0::1 224.0.0.1 ff02::1 192.88.99.1
:: ::1 fe80::1 fe80::1%1 fc00::1 fd00::1 2001::1 2001:db8::1 3fff::1 100::1 4000::1 2606:4700::1%eth0
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
239.255.255.255 240.0.0.1 255.255.255.255
"""


@pytest.mark.parametrize("url", ODD_URLS)
def test_odd_urls_are_refused(url: str) -> None:
    """R8: whatever two parsers could read in two ways, or leads to an address or a port of no receiver."""
    guard = Guard()
    with pytest.raises(SendError) as refused:
        guard.target(url)
    assert refused.value.kind == "bad_url" and not refused.value.sent
    with pytest.raises(InvalidRequest):
        guard.check_url(url)


def test_an_ordinary_url_is_normalised() -> None:
    """Host in lower case, default port, a path is always there, the query stays."""
    target = Guard().target("HTTPS://Hooks.Example.COM/in?a=1&b=%20")
    assert (target.tls, target.host, target.port, target.path) == (True, "hooks.example.com", 443, "/in?a=1&b=%20")
    assert target.authority == target.server_name == "hooks.example.com" and target.fixed == ()
    assert Guard().target("https://xn--fiq228c.example").path == "/"
    assert Guard(ports=(443, 8443)).target("https://a.example:8443/x").authority == "a.example:8443"


def test_loopback_is_a_switch_that_opens_nothing_else() -> None:
    """With the switch 127.0.0.1, localhost and [::1] take http and any port; every other refusal stays."""
    guard = Guard(allow_loopback=True)
    assert guard.target("http://127.0.0.1:8080/x").fixed == (ip_address("127.0.0.1"),)
    assert guard.target("http://localhost:1/").fixed == (ip_address("127.0.0.1"), ip_address("::1"))
    assert guard.target("https://[::1]:9/").server_name == "::1"
    guard.check_url("http://127.0.0.1:1/")
    for url in ODD_URLS:
        if url not in ("https://127.0.0.1/", "https://[::1]/", "https://localhost/"):
            with pytest.raises(SendError):
                guard.target(url)
    for url in ("http://127.0.0.2/", "http://10.0.0.1/", "http://[::2]/", "http://0.0.0.0/"):
        with pytest.raises(SendError):
            guard.target(url)
    with pytest.raises(SendError, match="address_refused"):
        guard.check_addresses(["127.0.0.1"])  # a name that leads inwards is refused all the same


def test_http_to_public_names_needs_its_own_switch() -> None:
    """allow_http lets http through where its port is listed, to names only."""
    assert Guard(allow_http=True, ports=(80,)).target("http://a.example/").tls is False
    with pytest.raises(SendError):
        Guard(allow_http=True).target("http://a.example/")
    with pytest.raises(SendError):
        Guard(allow_http=True, ports=(80,)).target("http://93.184.216.34/")


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """R9: rule 4 of the egress guard, the forms `ipaddress` calls global among them."""
    with pytest.raises(SendError) as refused:
        Guard().check_addresses(["93.184.216.34", address])
    assert refused.value.kind == "address_refused"


def test_public_addresses_pass_once_each() -> None:
    """Public IPv4 and IPv6 pass in the resolver's order, repeats removed; none at all is a DNS error."""
    given = ["93.184.216.34", "2606:4700::1111", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2400:3200::1"]
    assert [str(a) for a in Guard().check_addresses(given)] == [
        *("93.184.216.34", "2606:4700::1111", "172.32.0.1", "100.128.0.1", "2400:3200::1")
    ]
    for none in ([], ["not-an-address"]):
        with pytest.raises(SendError, match="dns"):
            Guard().check_addresses(none)


def test_own_addresses_can_be_denied() -> None:
    """Networks handed in as the hub's own are refused like private ones."""
    with pytest.raises(SendError, match="address_refused"):
        Guard(denied=("93.184.216.0/24",)).check_addresses(["93.184.216.34"])
