"""The bound of the API: FastAPI takes the bodies of POST /v1/acks and /v1/check through the same models and returns at
once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from fastapi import FastAPI

from hub.api.server import new_event_loop, serve
from hub.wire.acks import AckResult, AcksIn, AcksOut
from hub.wire.check import CheckAnswer, CheckIn, CheckOut
from tests.bench.processes import say

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@app.post("/v1/acks")
async def acks(body: AcksIn) -> AcksOut:
    return AcksOut(results=[AckResult(chunk_id=one.chunk_id, new=True) for one in body.answers])


@app.post("/v1/check")
async def check(body: CheckIn) -> CheckOut:
    return CheckOut(answers=[CheckAnswer(answer="no") for _ in body.checks], as_of=datetime.now(UTC))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(app, port=0, bound=lambda port: say(port=port)))
