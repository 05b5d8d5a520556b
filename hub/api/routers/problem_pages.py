"""What a problem's ``type`` leads to: the code explained. Whoever gets a refusal may read it, without a token."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from hub.api.catalogue import CATALOGUE
from hub.domain.errors import NotFound

router = APIRouter(tags=["health"])

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{code}</title>
<h1><code>{code}</code> ({status})</h1><p>{title}.</p><p>{remedy}</p></html>
"""


@router.get(
    "/problems/{code}",
    operation_id="explain_problem",
    summary="What a problem code means",
    response_class=HTMLResponse,
    responses={200: {"description": "a page for people"}},
)
async def explain(code: str) -> Response:
    """Where the ``type`` of a problem document leads. No token is needed."""
    entry = CATALOGUE.get(code)
    if entry is None:
        raise NotFound
    page = _PAGE.format(code=escape(code), status=entry.status, title=escape(entry.title), remedy=escape(entry.remedy))
    headers = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'", "cache-control": "max-age=3600"}
    return Response(page, media_type="text/html; charset=utf-8", headers=headers)
