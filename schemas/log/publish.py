"""Publishes a file of numbers (one a line) whose lines have ended, and waits for what becomes of it.

    python publish.py BOOTSTRAP PREFIX CARRIER FILE

Needs aiokafka; any other Kafka client will do as well. Run it again with the same file: nothing is published twice.
"""

import asyncio
import hashlib
import json
import sys
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

ROWS = 10_000


def lists(numbers: list[int]) -> list[dict]:
    """Each list has an id that follows from what is in it, so that a repeat is recognised."""
    parts = [numbers[at : at + ROWS] for at in range(0, len(numbers), ROWS)]
    ended = int(time.time()) // 86_400 * 86_400 - 86_400  # yesterday; take the true times from your own records
    return [
        {
            "id": "ended-" + hashlib.sha256(repr((ended, part)).encode()).hexdigest()[:32],
            "event_type": "deactivated",
            "numbers": part,
            "shared": {"terminated_at": ended},
        }
        for part in parts
    ]


async def main(bootstrap: str, prefix: str, carrier: str, numbers: list[int]) -> int:
    wanted = {one["id"]: one for one in lists(numbers)}
    consumer = AIOKafkaConsumer(f"{prefix}rejects.{carrier}", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await consumer.start()
    await producer.start()
    try:
        for name, one in wanted.items():
            value = json.dumps(one).encode()
            headers = [("schema", b"numhub.ingress.v1")]
            await producer.send_and_wait(f"{prefix}ingress.{carrier}", value, key=name.encode(), headers=headers)
        left, refused = set(wanted), 0
        while left:
            told = json.loads((await consumer.getone()).value)
            if told["kind"] == "summary":
                for one in told["lists"]:
                    if one["id"] in left:
                        left.discard(one["id"])
                        refused += one["refused"]
                        print(f"{one['id']}: {one['accepted']} accepted in {len(one['chunks'])} chunks")
            elif told["id"] in wanted:
                for group in told["rows"]:
                    print(f"{told['id']}: rows {group['rows']}: {group['meaning']}")
                if told["reason"] is not None:
                    left.discard(told["id"])
                    refused += len(wanted[told["id"]]["numbers"])
                    print(f"{told['id']}: {told['detail']}")
        return 1 if refused else 0
    finally:
        await producer.stop()
        await consumer.stop()


if __name__ == "__main__":
    *where, file = sys.argv[1:]
    sys.exit(asyncio.run(main(*where, [int(line) for line in Path(file).read_text().split()])))
