"""A sender that sends nothing: for tests of whatever sits above it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hub.adapters.webhook.guard import Guard
from hub.ports.sender import Response, SendError


@dataclass(frozen=True, slots=True)
class Sent:
    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


Answer = Response | SendError


class RecordingSender:
    """Remembers every post in ``sent`` and answers with ``answer``: a response, an error to raise, or a function of the
    post that gives one of them. ``script`` is used up first, in order."""

    def __init__(self, answer: Answer | Callable[[Sent], Answer] | None = None) -> None:
        self.answer: Answer | Callable[[Sent], Answer] = answer or Response(204)
        self.script: list[Answer | Callable[[Sent], Answer]] = []
        self.sent: list[Sent] = []
        self.closed = False
        self._guard = Guard(allow_loopback=True)

    def check_url(self, url: str) -> None:
        self._guard.check_url(url)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        sent = Sent(url, dict(headers), body)
        self.sent.append(sent)
        answer = self.script.pop(0) if self.script else self.answer
        if callable(answer):
            answer = answer(sent)
        if isinstance(answer, SendError):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True
