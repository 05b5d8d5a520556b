"""Signing in and out. ``GET /login?ticket=`` shows a button only, so that a mail program's link preview uses nothing
up; ``POST /login`` burns the ticket and gives the session cookie.
"""

from __future__ import annotations

import logging
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request, Response

from hub.api.context import Context
from hub.domain.parties import Party, Role
from hub.web import session
from hub.web.pages import Pages

log = logging.getLogger("numhub.web")

ADMITTED = frozenset({Role.regulator, Role.operator})
MAX_FORM = 4096  # bytes


class Door:
    """Who is looking, judged anew at every request; the routes of signing in and out."""

    def __init__(self, context: Context, key: bytes, pages: Pages) -> None:
        self._context, self._key, self._pages = context, key, pages
        self._cookie = "__Host-numhub_session" if pages.secure else "numhub_session"

    def party(self, request: Request) -> Party | None:
        """The regulator or operator whose session this is; None without a valid one, or once it was suspended."""
        found = session.read_session(self._key, request.cookies.get(self._cookie, ""), self._context.clock.now())
        return self._admitted(found.party_id) if found else None

    def routes(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/login", self._show, methods=["GET"])
        router.add_api_route("/login", self._enter, methods=["POST"])
        router.add_api_route("/logout", self._leave, methods=["POST"])
        return router

    def _admitted(self, party_id: str) -> Party | None:
        party = self._context.members.party(party_id)
        return party if party is not None and party.role in ADMITTED and not party.suspended else None

    async def _show(self, request: Request) -> Response:
        ticket = request.query_params.get("ticket", "")
        if not ticket:
            return await self._pages.page(request, "closed.html", 401, refused="")
        if session.read_link(self._key, ticket, self._context.clock.now()) is None:
            return await self._refuse(request)
        return await self._pages.page(request, "login.html", ticket=ticket)

    async def _enter(self, request: Request) -> Response:
        if not self._same_site(request):
            return await self._refuse(request, "cross_site")
        now = self._context.clock.now()
        ticket = session.read_link(self._key, await _field(request, "ticket"), now)
        party = self._admitted(ticket.party_id) if ticket else None
        if ticket is None or party is None:
            return await self._refuse(request)
        # remembered a little longer than the ticket lives: no moment in which it is both forgotten and valid
        burnt = f"login:{ticket.nonce}"
        if not await self._context.coordination.first_use(burnt, ticket.left(now) + 60, issued_at=ticket.issued_at):
            return await self._refuse(request)
        log.info("web_session_opened", extra={"party": party.party_id, "role": party.role.value})
        response = Response(status_code=303, headers={"location": "/", "cache-control": "no-store"})
        response.set_cookie(
            self._cookie,
            session.sign_session(self._key, party.party_id, now),
            max_age=int(session.SESSION_WITHIN.total_seconds()),
            path="/",
            httponly=True,
            samesite="strict",
            secure=self._pages.secure,
        )
        return response

    async def _leave(self, request: Request) -> Response:
        if not self._same_site(request):
            return await self._refuse(request, "cross_site")
        response = Response(status_code=303, headers={"location": "/", "cache-control": "no-store"})
        response.delete_cookie(self._cookie, path="/", httponly=True, samesite="strict", secure=self._pages.secure)
        return response

    async def _refuse(self, request: Request, why: str = "link_refused") -> Response:
        log.warning("web_login_refused", extra={"reason": why})
        return await self._pages.page(request, "closed.html", 403, refused=why)

    def _same_site(self, request: Request) -> bool:
        """Does a form come from a page of this hub? Browsers say so; what says nothing is no browser with a cookie."""
        fetched_from = request.headers.get("sec-fetch-site")
        if fetched_from is not None and fetched_from not in ("same-origin", "none"):
            return False
        origin = request.headers.get("origin")
        if origin is None:
            return True
        ours = {urlsplit(self._context.settings.public_url).netloc, request.headers.get("host", "")}
        return urlsplit(origin).netloc in ours - {""}


async def _field(request: Request, name: str) -> str:
    """One field of a small URL-encoded form; "" if it is not there exactly once."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM:
            return ""
    try:
        found = parse_qs(body.decode("ascii"), max_num_fields=4).get(name, [])
    except ValueError:
        return ""
    return found[0] if len(found) == 1 else ""
