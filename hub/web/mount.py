"""Puts the pages on the application."""

from __future__ import annotations

from fastapi import FastAPI

from hub.api.context import Context
from hub.web.door import Door
from hub.web.pages import Pages
from hub.web.regulator import Regulator


def mount(app: FastAPI, context: Context, link_key: bytes) -> None:
    """Serve the regulator's page on ``app``: ``/``, ``/login``, ``/logout``, ``/dashboard/data``, ``/static/``.

    ``link_key``: at least 32 secret bytes, the ones links were signed with (`hub.web.session.sign_link`).
    """
    if len(link_key) < 32:
        raise ValueError("link_key must have at least 32 bytes")
    pages = Pages.load(context.settings.public_url.startswith("https://"))
    door = Door(context, link_key, pages)
    app.include_router(door.routes())
    app.include_router(Regulator(context, door, pages).routes())
