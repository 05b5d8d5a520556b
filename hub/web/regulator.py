"""The regulator's page: ``/`` for people, ``/dashboard/data`` for its script, ``/static/`` for the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from hub.api.context import Context
from hub.domain.errors import NotFound, Unauthenticated
from hub.domain.parties import Party, Role
from hub.web.door import Door
from hub.web.pages import Pages
from hub.web.texts import LANGUAGES, TAGS
from hub.web.view import build

KEPT_FOR = 2.0  # seconds for which one count serves every reader of the page
REFRESH_MS = 5000


class Regulator:
    def __init__(self, context: Context, door: Door, pages: Pages) -> None:
        self._context, self._door, self._pages = context, door, pages
        self._counting = asyncio.Lock()
        self._counted: tuple[float, Mapping[str, Any]] | None = None

    def routes(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/", self._page, methods=["GET"])
        router.add_api_route("/dashboard/data", self._data, methods=["GET"])
        router.add_api_route("/static/{name}", self._static, methods=["GET"])
        return router

    async def _page(self, request: Request) -> Response:
        party = self._door.party(request)
        if party is None:
            return await self._pages.page(request, "closed.html", 401, refused="")
        text = self._pages.texts(request)
        view = build(await self._overview(), text, withhold=_withholds(party))
        languages = [(language, TAGS[language], _NAMES[language]) for language in LANGUAGES]
        return await self._pages.page(
            request, "regulator.html", view=view, party=party, languages=languages, refresh_ms=REFRESH_MS
        )

    async def _data(self, request: Request) -> Response:
        party = self._door.party(request)
        if party is None:
            raise Unauthenticated("The session has ended; open a new link to sign in.")
        view = build(await self._overview(), self._pages.texts(request), withhold=_withholds(party))
        headers = {"cache-control": "no-store", "vary": "accept-language, cookie"}
        return Response(orjson.dumps(view), headers=headers, media_type="application/json")

    async def _static(self, name: str, request: Request) -> Response:
        asset = (await self._pages.assets.bundle()).files.get(name)
        if asset is None:
            raise NotFound("There is no such file.")
        return asset.response(request)

    async def _overview(self) -> Mapping[str, Any]:
        """The figures, counted at most every KEPT_FOR seconds however many people look."""
        async with self._counting:
            now = self._context.clock.monotonic()
            if self._counted is None or now - self._counted[0] >= KEPT_FOR:
                self._counted = (now, await self._context.report.overview())
            return self._counted[1]


_NAMES = {"zh": "中文", "en": "English"}


def _withholds(party: Party) -> bool:
    return party.role is not Role.regulator
