"""Who is calling, and may they: ``Annotated[Principal, Depends(require(Scope.feed_read))]``.

Besides the token it judges the party's request rate, so that one busy party cannot starve the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache

from fastapi import Request, Security
from fastapi.openapi.models import OAuth2 as OAuth2Model
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security.base import SecurityBase

from hub.api.context import Context, get_context
from hub.api.limits import RATE_LIMIT, rate_limit
from hub.domain.errors import Forbidden, TooManyRequests, Unauthenticated
from hub.domain.parties import Principal, Scope

MAX_TOKEN = 8192


class ClientCredentials(SecurityBase):
    """Describes the access token in the OpenAPI document; the judging happens in `require`."""

    def __init__(self) -> None:
        flow = OAuthFlowClientCredentials(
            tokenUrl="/oauth2/token", scopes={scope.value: scope.value for scope in Scope}
        )
        self.model = OAuth2Model(flows=OAuthFlows(clientCredentials=flow))
        self.scheme_name = "access_token"

    async def __call__(self) -> None:
        return None


_SCHEME = ClientCredentials()


def bearer(request: Request) -> str:
    """The one bearer token of a request. Raises Unauthenticated if there is none, or more than one."""
    found = request.headers.getlist("authorization")
    if not found:
        raise Unauthenticated
    kind, _, token = found[0].partition(" ")
    token = token.strip()
    if len(found) != 1 or kind.lower() != "bearer" or not token or len(token) > MAX_TOKEN or not token.isascii():
        raise Unauthenticated(code="invalid_token")
    return token


async def authenticate(request: Request, context: Context) -> Principal:
    """The verified caller, counted against its request rate. Raises Unauthenticated, TooManyRequests."""
    principal = context.tokens.verify(bearer(request))
    limit, window = context.settings.requests_per_second, context.settings.rate_window
    if limit:
        quota = int(limit * window)
        wait = await context.coordination.allow(f"api:{principal.party_id}", limit=quota, window=window)
        left = rate_limit("party", quota, window, wait.left, wait or wait.resets_after)
        request.scope[RATE_LIMIT] = [(name.encode(), value.encode()) for name, value in left.items()]
        if wait:
            raise TooManyRequests(retry_after=wait)
    return principal


@cache
def require(*scopes: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency that yields the caller if its token carries any one of ``scopes`` (none named: any valid token)."""

    async def principal(
        request: Request,
        _: None = Security(_SCHEME, scopes=[scope.value for scope in scopes]),
    ) -> Principal:
        caller = await authenticate(request, await get_context(request))  # every dependency less is 20 us less
        if scopes and caller.scopes.isdisjoint(scopes):
            raise Forbidden(code="insufficient_scope", scope=" ".join(scope.value for scope in scopes))
        return caller

    return principal
