"""The files a browser loads: the page's own style and script, and plotly's browser part from its Python package.

Addresses carry the content's digest or the package's version, so browsers keep them for good. Read and compressed once,
in a thread, when first asked for.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources

from fastapi import Request, Response

_OWN = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
_FOREVER = "public, max-age=31536000, immutable"

# plotly fills one style element, for a map library it carries. The policy admits exactly that text and no other.
_STYLE_TEXTS = re.compile(rb"createElement\(\"style\"\);.{0,120}?\.textContent='((?:[^'\\]|\\.)*)'", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asset:
    media_type: str
    plain: bytes = field(repr=False)
    zipped: bytes = field(repr=False)

    def response(self, request: Request) -> Response:
        headers = {"cache-control": _FOREVER, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.zipped, headers=headers | {"content-encoding": "gzip"}, media_type=self.media_type)
        return Response(self.plain, headers=headers, media_type=self.media_type)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Assets by file name, how the pages address them, and the style texts the policy must admit."""

    files: Mapping[str, Asset]
    names: Mapping[str, str]  # page.css, page.js, plotly.js -> file name below /static/
    style_hashes: tuple[str, ...]


class Assets:
    """Loads the bundle once in a process, for whoever comes first, off the event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._bundle: Bundle | None = None

    async def bundle(self) -> Bundle:
        async with self._lock:
            if self._bundle is None:
                self._bundle = await asyncio.to_thread(_load)
            return self._bundle


@cache
def _load() -> Bundle:
    files, names = {}, {}
    for name, media_type in _OWN.items():
        plain = (resources.files("hub.web") / "static" / name).read_bytes()
        stem, _, suffix = name.rpartition(".")
        names[name] = f"{stem}-{hashlib.sha256(plain).hexdigest()[:12]}.{suffix}"
        files[names[name]] = Asset(media_type, plain, gzip.compress(plain, 6, mtime=0))
    plotly = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    names["plotly.js"] = f"plotly-{metadata.version('plotly')}.min.js"
    files[names["plotly.js"]] = Asset("text/javascript; charset=utf-8", plotly, gzip.compress(plotly, 6, mtime=0))
    return Bundle(files, names, tuple(_style_hash(text) for text in _STYLE_TEXTS.findall(plotly)))


def _style_hash(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode('ascii')}'"


def policy(style_hashes: tuple[str, ...] = ()) -> str:
    """The Content-Security-Policy: nothing inline, nothing from elsewhere, no framing."""
    styles = " ".join(("'self'", *style_hashes))
    return (
        f"default-src 'none'; script-src 'self'; style-src {styles}; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
