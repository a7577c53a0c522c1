"""Publishes one business event and waits until the broker has stored it.

    python publish.py nats://127.0.0.1:4222 acme plugin.job.completed '{"job_id": "7"}'
"""

import asyncio
import json
import sys
import uuid

import nats


async def main(url, tenant, kind, data):
    connection = await nats.connect(url)
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),  # the same id again would be recognised as a repeat
        "source": "/examples/python",
        "type": kind,
        "tenant": tenant,
        "data": json.loads(data),
    }
    stored = await connection.jetstream().publish(f"fermata.events.{tenant}.{kind}", json.dumps(event).encode())
    print(f"event {event['id']} is stored as {stored.stream} {stored.seq}")
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
