"""Tokens for client credentials, and the documents that tell clients how to ask for them.

The form is read by hand (`parse_qsl` with limits): no multipart parser is reachable.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from hub.api.context import Context, get_context
from hub.api.limits import rate_limit
from hub.domain.errors import TooManyRequests, Unavailable
from hub.domain.parties import Scope
from hub.ports.tokens import TokenRefused, TokenRequest
from hub.wire.oauth import AuthorizationServerOut, JwksOut, ProtectedResourceOut, TokenErrorOut, TokenOut

router = APIRouter(tags=["oauth"])

MAX_FORM = 16_384
MAX_FIELDS = 20
_FIELDS = ("grant_type", "scope", "client_id", "client_secret", "client_assertion_type", "client_assertion")
_SCOPES = [scope.value for scope in Scope]

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials"]},
                        "scope": {"type": "string", "description": "space-separated; all of your role if left out"},
                        "client_assertion_type": {
                            "type": "string",
                            "enum": ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
                        },
                        "client_assertion": {"type": "string", "description": "signed JWT, RFC 7523"},
                        "client_id": {"type": "string"},
                        "client_secret": {"type": "string", "description": "sandboxes only"},
                    },
                }
            }
        },
    }
}

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": TokenErrorOut, "description": "RFC 6749 section 5.2"},
    "5XX": {"model": TokenErrorOut, "description": "not now; repeat later"},
}

Ctx = Annotated[Context, Depends(get_context)]


@router.post(
    "/oauth2/token",
    response_model=TokenOut,
    openapi_extra=_FORM,
    responses=_ERRORS,
    operation_id="issue_token",
    summary="Get an access token",
)
async def token(request: Request, context: Ctx) -> Response:
    """Client credentials with ``private_key_jwt``: ``iss`` = ``sub`` = client id, ``aud`` = issuer, ``exp`` at most
    five minutes ahead, a fresh ``jti`` each time."""
    try:
        granted = await context.tokens.issue(await read_form(request))
    except TokenRefused as refused:
        return _refusal(refused.error, refused.description)
    except TooManyRequests as error:
        seconds = max(1, round(float(error.details.get("retry_after", 1))))
        headers = {
            "retry-after": str(seconds),
            **rate_limit("token", error.details.get("per_minute", 0), 60, 0, seconds),
        }
        return _answer(429, TokenErrorOut(error="invalid_request", error_description=error.message), headers)
    except Unavailable:
        body = TokenErrorOut(error="temporarily_unavailable", error_description="Repeat in a moment.")
        return _answer(503, body, {"retry-after": "1"})
    body_out = TokenOut(access_token=granted.value, expires_in=granted.expires_in, scope=granted.scope)
    return _answer(200, body_out, rate_limit("token", granted.per_minute, 60, granted.left, granted.resets_after))


def _refusal(error: Any, description: str) -> Response:
    unknown_client = error == "invalid_client"
    headers = {"www-authenticate": 'Basic realm="numhub"'} if unknown_client else {}
    return _answer(401 if unknown_client else 400, TokenErrorOut(error=error, error_description=description), headers)


def _answer(status: int, body: TokenOut | TokenErrorOut, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(
        body.model_dump(mode="json"), status, {"cache-control": "no-store", "pragma": "no-cache", **(headers or {})}
    )


async def read_form(request: Request) -> TokenRequest:
    """The token request in a form body. Raises TokenRefused for anything that two parsers could read differently."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise TokenRefused("invalid_request", "Send application/x-www-form-urlencoded.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise TokenRefused("invalid_request", "Send the form without a content coding.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM:
            raise TokenRefused("invalid_request", "The form is too large.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except ValueError:
        raise TokenRefused("invalid_request", "The form cannot be read.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise TokenRefused("invalid_request", "A parameter was sent twice.")
    return TokenRequest(**{name: form[name] for name in _FIELDS if name in form}, basic=_basic(request))


def _basic(request: Request) -> tuple[str, str] | None:
    found = request.headers.getlist("authorization")
    if not found:
        return None
    kind, _, value = found[0].partition(" ")
    try:
        if len(found) != 1 or kind.lower() != "basic" or len(value) > 1024:
            raise ValueError
        user, colon, secret = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
        if not colon:
            raise ValueError
    except (ValueError, binascii.Error):
        raise TokenRefused("invalid_client", "The Authorization header cannot be read.") from None
    return unquote_plus(user), unquote_plus(secret)


@router.get("/jwks.json", operation_id="get_jwks", summary="The hub's public keys")
async def jwks(context: Ctx) -> JwksOut:
    return JwksOut.model_validate(context.tokens.jwks())


@router.get(
    "/.well-known/oauth-authorization-server",
    operation_id="get_authorization_server",
    summary="Authorization server metadata (RFC 8414)",
)
async def authorization_server(context: Ctx) -> AuthorizationServerOut:
    base = context.settings.public_url.rstrip("/")
    return AuthorizationServerOut(
        issuer=base,
        token_endpoint=f"{base}/oauth2/token",
        jwks_uri=f"{base}/jwks.json",
        scopes_supported=_SCOPES,
        response_types_supported=[],
        **context.tokens.metadata(),
    )


@router.get(
    "/.well-known/oauth-protected-resource",
    operation_id="get_protected_resource",
    summary="Protected resource metadata (RFC 9728)",
)
async def protected_resource(context: Ctx) -> ProtectedResourceOut:
    base = context.settings.public_url.rstrip("/")
    return ProtectedResourceOut(
        resource=base,
        authorization_servers=[base],
        jwks_uri=f"{base}/jwks.json",
        scopes_supported=_SCOPES,
        bearer_methods_supported=["header"],
        resource_name="numhub",
    )
