"""One file per resource. ``ALL`` is what `create_app` includes; add a router here when its file exists."""

from __future__ import annotations

from fastapi import APIRouter

from hub.api.routers import (
    acks,
    batches,
    check,
    clearance,
    deliveries,
    events,
    feed,
    health,
    oauth,
    parties,
    problem_pages,
    renewals,
    reports,
    subscriptions,
    waivers,
)

# Paths are tried in this order, one by one: what is called most stands first.
ALL: tuple[APIRouter, ...] = (
    acks.router,
    check.router,
    events.router,
    feed.router,
    renewals.router,
    oauth.router,
    clearance.router,
    batches.router,
    subscriptions.router,
    deliveries.router,
    waivers.router,
    reports.router,
    parties.router,
    health.router,
    health.metrics_router,
    problem_pages.router,
)
