"""Routes that are called thousands of times a second: the same endpoints, called without a solver in between.

FastAPI works out what an endpoint needs on every request. For an endpoint that needs no more than the context, the
caller, an idempotency key and one body, that costs more than the endpoint's own work; here it is worked out once, when
the route is made. The document, the checks and the errors stay the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, get_args, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from hub.api.strict import ABSENT, read_json

_Part = Callable[[Request], Awaitable[Any]]


class HotRoute(APIRoute):
    """For endpoints whose parameters are dependencies on the request alone and at most one body model, and which
    return a model. Anything else raises TypeError when the route is made.

    ``answer`` yields the body of the answer, whose status is ``status``, or raises as the endpoint does.
    """

    answer: Callable[[Request], Awaitable[bytes]]
    status: int

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[..., Awaitable[BaseModel]] = self.endpoint
        hints = get_type_hints(endpoint, include_extras=True)
        names = list(inspect.signature(endpoint).parameters)
        names.sort(key=lambda name: _is_body(hints[name]))  # who calls and with which key, then what
        steps = [(name, _part(hints[name])) for name in names]
        status = self.status = self.status_code or 200

        async def answer(request: Request) -> bytes:
            given = {name: await read(request) for name, read in steps}
            found = await endpoint(**given)
            return found.__pydantic_serializer__.to_json(found)

        async def handle(request: Request) -> Response:
            return Response(await answer(request), status, media_type="application/json")

        self.answer = answer
        return handle


def _is_body(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, BaseModel)


def _part(hint: Any) -> _Part:
    """How a parameter is read from the request."""
    if _is_body(hint):
        return _body(hint)
    depends = next((each for each in get_args(hint)[1:] if isinstance(each, Depends)), None)
    if depends is None or depends.dependency is None:
        raise TypeError(f"a hot route cannot read {hint!r}")
    wanted = inspect.signature(depends.dependency).parameters
    required = [name for name, one in wanted.items() if one.default is inspect.Parameter.empty]
    if required != ["request"]:
        raise TypeError(f"a hot route's dependency takes the request alone, not {required}")
    return depends.dependency


def _body(model: type[BaseModel]) -> _Part:
    """A model may offer ``quickly``: itself out of plain input, or None where validation should have the word."""
    validate = model.__pydantic_validator__.validate_python
    quickly: Callable[[Any], Any] | None = getattr(model, "quickly", None)

    async def read(request: Request) -> Any:
        given = await read_json(request)
        if given is ABSENT:
            raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required"}])
        found = quickly(given) if quickly is not None else None
        if found is not None:
            return found
        try:
            return validate(given, from_attributes=True)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from None

    return read
