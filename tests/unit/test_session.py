"""One-time links and session cookies: what is signed, what is refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from hub.web.session import LINK_WITHIN, SESSION_WITHIN, read_link, read_session, sign_link, sign_session

KEY, NOW = b"k" * 32, datetime(2026, 3, 1, tzinfo=UTC)


def test_a_link_says_who_and_until_when() -> None:
    """A ticket reads back as its party, and holds for ten minutes."""
    ticket = read_link(KEY, sign_link(KEY, "miit", NOW), NOW)
    assert ticket is not None
    assert (ticket.party_id, ticket.left(NOW)) == ("miit", LINK_WITHIN.total_seconds())


def test_two_links_never_share_a_nonce() -> None:
    """Links made in the same second for the same party are told apart."""
    nonces = {read_link(KEY, sign_link(KEY, "miit", NOW), NOW).nonce for _ in range(50)}  # type: ignore[union-attr]
    assert len(nonces) == 50


@pytest.mark.parametrize(("after", "valid"), [(timedelta(0), True), (LINK_WITHIN, False), (timedelta(days=1), False)])
def test_a_link_ends(after: timedelta, valid: bool) -> None:
    """Ten minutes later a ticket is worth nothing."""
    assert (read_link(KEY, sign_link(KEY, "miit", NOW), NOW + after) is not None) is valid


@pytest.mark.parametrize(("after", "valid"), [(timedelta(hours=7), True), (SESSION_WITHIN, False)])
def test_a_session_ends(after: timedelta, valid: bool) -> None:
    """A session cookie holds for eight hours."""
    assert (read_session(KEY, sign_session(KEY, "miit", NOW), NOW + after) is not None) is valid


def test_links_and_sessions_do_not_pass_for_each_other() -> None:
    """A ticket is no cookie and a cookie is no ticket, though one key stands behind both."""
    assert read_session(KEY, sign_link(KEY, "miit", NOW), NOW) is None
    assert read_link(KEY, sign_session(KEY, "miit", NOW), NOW) is None


def test_every_changed_character_is_noticed() -> None:
    """No single character of a ticket can be changed to something else that is accepted as another text."""
    whole = sign_link(KEY, "miit", NOW)
    said = read_link(KEY, whole, NOW)
    for place, char in enumerate(whole):
        other = "A" if char != "A" else "B"
        found = read_link(KEY, whole[:place] + other + whole[place + 1 :], NOW)
        # the last character of a base64 text has bits that mean nothing: it may change, what it says may not
        assert found is None or (place == len(whole) - 1 and found == said)


def test_another_key_signs_nothing_here() -> None:
    """A ticket signed under another key is refused."""
    assert read_link(KEY, sign_link(b"x" * 32, "miit", NOW), NOW) is None


def test_claims_without_a_signature_are_refused() -> None:
    """Writing the claims oneself gets nobody in."""
    body = base64.urlsafe_b64encode(json.dumps({"party": "miit", "exp": 9_999_999_999, "nonce": "n"}).encode())
    for mac in ("", ".", ".AAAA"):
        assert read_link(KEY, body.decode().rstrip("=") + mac, NOW) is None


@pytest.mark.parametrize("text", ["", ".", "a.b", "é.é", "!!!.???", "x" * 2000, "." * 50, "\x00.\x00"])
def test_rubbish_is_refused(text: str) -> None:
    """Whatever arrives as a ticket or cookie, the answer is no, not an error."""
    assert read_link(KEY, text, NOW) is None
    assert read_session(KEY, text, NOW) is None
