"""The HTTP surface, assembled from the routers around one `Context`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from hub.api import problems
from hub.api.context import Context
from hub.api.description import describe
from hub.api.limits import Limits
from hub.api.routers import ALL, health
from hub.api.shortcut import Shortcut
from hub.wire.problems import Problem

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "refused: what is wrong and what to do"},
    "5XX": {"model": Problem, "description": "not now; repeat later"},
}


def create_health_app(context: Context) -> FastAPI:
    """What a worker process shows: whether it lives, whether it is ready, and its metrics."""
    app = FastAPI(title="numhub worker", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.context = context
    problems.install(app, "")
    for router in (health.router, health.metrics_router):
        app.include_router(router)
    return app


def create_app(context: Context) -> FastAPI:
    """The ASGI application. Nothing is started here: loops and adapters are the caller's."""
    app = FastAPI(
        title="numhub",
        version=context.settings.version,
        summary="The hub that tells every app when a phone number changes hands",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        strict_content_type=True,
    )
    app.state.context = context
    public_url = context.settings.public_url.rstrip("/")
    resource_metadata = f"{public_url}/.well-known/oauth-protected-resource"
    problems.install(app, resource_metadata)
    app.add_middleware(Limits, context=context)
    for router in ALL:
        app.include_router(router, responses=_REFUSALS)
    routes = [route for router in ALL for route in router.routes]
    app.state.shortcut = Shortcut(app, context, routes, resource_metadata)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, public_url)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
