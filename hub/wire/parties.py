"""Parties, as operators see them over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from hub.domain.parties import Role
from hub.wire.base import Message, Moment, ShortText, Slug

PublicJwk = Annotated[dict[str, Any], Field(max_length=16, description="public JWK: EC P-256, OKP Ed25519 or RSA")]


class PartyIn(Message):
    """``POST /v1/parties``."""

    party_id: Slug
    role: Role = Field(strict=False)
    name: ShortText
    keys: Annotated[list[PublicJwk], Field(min_length=1, max_length=5)]
    block_holders: Annotated[list[str], Field(max_length=16)] = Field(
        default_factory=list, description="codes of the numbering plan; empty: any block"
    )
    acting_for: Annotated[list[Slug], Field(max_length=100)] = Field(default_factory=list)
    coverage_since: Moment | None = None


class PartyOut(Message):
    party_id: str
    role: Role
    name: str
    suspended: bool
    sandbox: bool
    kids: list[str] = Field(description="thumbprints of the keys that are good now")
    block_holders: list[str]
    acting_for: list[str]
    coverage_since: Moment | None
    created_at: Moment


class PartyList(Message):
    parties: list[PartyOut]


class KeyIn(Message):
    """``POST /v1/parties/{id}/keys``: older keys stay good for ``overlap_seconds``."""

    key: PublicJwk
    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400
