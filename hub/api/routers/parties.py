"""Operators enrol, suspend and resume parties, and register their new keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.strict import StrictRoute
from hub.domain.errors import NotFound
from hub.domain.parties import Party, Principal, Scope
from hub.wire.parties import KeyIn, PartyIn, PartyList, PartyOut

router = APIRouter(prefix="/v1/parties", tags=["parties"], route_class=StrictRoute)

Ctx = Annotated[Context, Depends(get_context)]
Operator = Annotated[Principal, Depends(require(Scope.parties_manage))]
PartyId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{1,62}$")]


@router.get("", operation_id="list_parties", summary="All parties")
async def parties(context: Ctx, _: Operator) -> PartyList:
    found = sorted(context.members.snapshot.parties.values(), key=lambda party: party.party_id)
    return PartyList(parties=[_out(context, party) for party in found])


@router.post("", status_code=201, operation_id="enrol_party", summary="Enrol a party")
async def add(body: PartyIn, context: Ctx, _: Operator) -> PartyOut:
    enrolled = await context.enrol.add_party(
        body.role,
        body.party_id,
        body.name,
        keys=body.keys,
        block_holders=body.block_holders,
        acting_for=body.acting_for,
        coverage_since=body.coverage_since,
    )
    return _out(context, enrolled.party)


@router.get("/{party_id}", operation_id="get_party", summary="One party")
async def show(party_id: PartyId, context: Ctx, _: Operator) -> PartyOut:
    party = context.members.party(party_id)
    if party is None:
        raise NotFound
    return _out(context, party)


@router.post("/{party_id}/suspend", operation_id="suspend_party", summary="Stop a party everywhere, within a minute")
async def suspend(party_id: PartyId, context: Ctx, _: Operator) -> PartyOut:
    return _out(context, await context.enrol.suspend(party_id))


@router.post("/{party_id}/resume", operation_id="resume_party", summary="Let a suspended party take part again")
async def resume(party_id: PartyId, context: Ctx, _: Operator) -> PartyOut:
    return _out(context, await context.enrol.resume(party_id))


@router.post(
    "/{party_id}/keys",
    status_code=201,
    operation_id="rotate_party_key",
    summary="Register a new key; older ones run out",
)
async def rotate(party_id: PartyId, body: KeyIn, context: Ctx, _: Operator) -> PartyOut:
    await context.enrol.rotate_key(party_id, body.key, overlap=timedelta(seconds=body.overlap_seconds))
    return await show(party_id, context, _)


def _out(context: Context, party: Party) -> PartyOut:
    now = context.clock.now()
    keys = context.members.snapshot.keys.get(party.party_id, ())
    return PartyOut(
        party_id=party.party_id,
        role=party.role,
        name=party.name,
        suspended=party.suspended,
        sandbox=party.sandbox,
        kids=[key.kid for key in keys if key.retired_at is None or now < key.retired_at],
        block_holders=list(party.block_holders),
        acting_for=list(party.acting_for),
        coverage_since=party.coverage_since,
        created_at=party.created_at,
    )
