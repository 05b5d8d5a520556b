"""What the routers use: built once by `hub.app.wiring`, reached through `get_context`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import Request

if TYPE_CHECKING:
    from hub.flow.members import Members
    from hub.ports.clock import Clock
    from hub.ports.coordination import Coordination
    from hub.ports.ledger import Directory, Ledger
    from hub.ports.log import EventLog
    from hub.ports.metrics import Metrics
    from hub.ports.number_index import NumberIndex
    from hub.ports.tokens import Tokens


@dataclass(frozen=True)
class ApiSettings:
    """Plain values the HTTP surface needs. ``public_url`` is the issuer and the base of every address given out."""

    public_url: str = "http://127.0.0.1:8080"
    requests_per_second: int = 2000  # per party, averaged over ``rate_window`` seconds; 0 switches the limit off
    rate_window: float = 10.0
    token_requests_per_minute: int = 120  # per client id at the token endpoint
    body_limit: int = 1 << 20  # bytes, where a route class states no other
    version: str = "0.1.0"


@dataclass
class Context:
    """Ports and use cases by name; a process that does not serve a router may leave its fields None."""

    clock: Clock
    members: Members
    tokens: Tokens
    coordination: Coordination
    metrics: Metrics
    settings: ApiSettings = field(default_factory=ApiSettings)
    ledger: Ledger = None  # type: ignore[assignment]
    directory: Directory = None  # type: ignore[assignment]
    log: EventLog = None  # type: ignore[assignment]
    index: NumberIndex = None  # type: ignore[assignment]
    fold: Any = None
    reader: Any = None
    writer: Any = None
    enrol: Any = None
    subscriptions: Any = None
    pull: Any = None
    acknowledge: Any = None
    redrive: Any = None
    batches: Any = None
    events: Any = None
    clear: Any = None
    renew: Any = None
    check: Any = None
    waive: Any = None
    report: Any = None
    exposition: Any = None  # () -> (content type, bytes): the metrics page
    link: Any = None  # signed one-time links of the regulator's page


async def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context
