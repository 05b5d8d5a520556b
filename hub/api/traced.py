"""A span per request, by OpenTelemetry's conventions for HTTP servers; continues the caller's trace if it sent one.

The path as sent is left out: it may hold anything. The route's template holds no id.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.ports.tracing import Tracing

_UNWATCHED = frozenset({"/health/live", "/health/ready", "/metrics"})


class Traced:
    """Outermost ASGI layer; only there when tracing is on."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app, self._tracing = app, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNWATCHED:
            await self._app(scope, receive, send)
            return
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        with self._tracing.request(given[:128].decode("latin-1") or None) as span:
            try:
                await self._app(scope, receive, answer)
            finally:
                route = getattr(scope.get("route"), "path", None)
                span.note(
                    {
                        "http.request.method": scope["method"] if scope["method"].isalpha() else "_OTHER",
                        "http.route": route if isinstance(route, str) else "unmatched",
                        "http.response.status_code": status,
                    }
                )
                if status >= 500:
                    span.failed(str(status))
