"""The token endpoint and the documents by which clients find it. Members are named by the RFCs, not by us."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hub.wire.base import Message


class TokenOut(Message):
    """``POST /oauth2/token`` (RFC 6749 section 5.1)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  the type's name, no secret
    expires_in: int = Field(description="seconds")
    scope: str


class TokenErrorOut(Message):
    """RFC 6749 section 5.2."""

    error: Literal[
        "invalid_request", "invalid_client", "unsupported_grant_type", "invalid_scope", "temporarily_unavailable"
    ]
    error_description: str


class JwksOut(Message):
    """``GET /jwks.json`` (RFC 7517 section 5)."""

    keys: list[dict[str, Any]]


class AuthorizationServerOut(Message):
    """``GET /.well-known/oauth-authorization-server`` (RFC 8414)."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    token_endpoint_auth_signing_alg_values_supported: list[str]


class ProtectedResourceOut(Message):
    """``GET /.well-known/oauth-protected-resource`` (RFC 9728)."""

    resource: str
    authorization_servers: list[str]
    jwks_uri: str
    scopes_supported: list[str]
    bearer_methods_supported: list[str]
    resource_name: str
