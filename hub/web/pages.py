"""What every page has in common: language, headers, templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from hub.web.assets import Assets, policy
from hub.web.texts import LANGUAGES, Texts, choose

LANGUAGE_COOKIE = "numhub_language"
_A_YEAR = 365 * 86_400

_HEADERS = {
    "cache-control": "no-store",
    "vary": "accept-language, cookie",
    "referrer-policy": "same-origin",  # no-referrer would make forms send "Origin: null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Pages:
    """Writes pages from templates. ``secure``: browsers reach the hub by https, so cookies must not travel without."""

    assets: Assets
    secure: bool
    _templates: Environment

    @classmethod
    def load(cls, secure: bool) -> Pages:
        environment = Environment(
            loader=PackageLoader("hub.web"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return cls(Assets(), secure, environment)

    def texts(self, request: Request) -> Texts:
        asked = request.query_params.get("lang")
        remembered = request.cookies.get(LANGUAGE_COOKIE)
        return Texts(choose(asked, remembered, request.headers.get("accept-language", "")))

    async def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A whole page in the reader's language; a language asked for in the address is remembered."""
        bundle = await self.assets.bundle()
        text = self.texts(request)
        html = self._templates.get_template(template).render(
            t=text, static=bundle.names, path=request.url.path, **values
        )
        headers = _HEADERS | {"content-security-policy": policy(bundle.style_hashes), "content-language": text.tag}
        response = Response(html, status, headers, "text/html; charset=utf-8")
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, text.language, max_age=_A_YEAR, httponly=True, samesite="lax", secure=self.secure
            )
        return response
