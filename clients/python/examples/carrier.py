"""A carrier's night: the file, what was refused, one number back to its holder, and may we sell?"""

# ruff: noqa: T201
from __future__ import annotations

from datetime import datetime
from pathlib import Path

from numhub_client import Client, Event


def publish_night(client: Client, file: Path, batch_seq: int) -> dict[str, int]:
    """Upload tonight's file; returns reason -> refused rows. Safe to call again after any crash."""
    batch = client.batches.upload(file, batch_seq=batch_seq, progress=lambda step: print(step.stage, step.done))
    for row in client.batches.result(batch.batch_id):
        print("line", row.line, row.reason)
    return {reason.reason: reason.rows for reason in batch.reasons}


def give_back(client: Client, number: str, at: datetime) -> bool:
    """The former holder has the number again: every app hears of it within seconds."""
    return client.events.publish([Event(number, "restored", at)]).results[0].accepted


def sellable(client: Client, numbers: list[str]) -> list[str]:
    """The numbers that may go on sale; silence of an app never counts as yes."""
    verdicts = client.clearance.numbers(numbers).numbers
    return [numbers[verdict.index] for verdict in verdicts if verdict.verdict == "go"]
