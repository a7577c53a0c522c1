"""Publishes an event, prints its run's audit entries as they come, and checks the stored log.

    python read_frames.py nats://127.0.0.1:4222 acme plugin.job.completed '{"job_id": "7"}'

Needs nats-py and msgpack. Shares no code with the engine: frames are read as the modules
`envelope`, `journal` and `audit` of crates/wire describe them, leaves are recomputed as
docs/audit-format.md says.

Prints `entry INDEX KIND NODE ATTEMPT` for each entry of the run, then `checked STREAM COUNT`
for each partition. Exit code 1 when an entry is not the one that its record gives.
"""

import asyncio
import hashlib
import hmac
import json
import sys
import uuid

import msgpack
import nats
from nats.js.errors import NotFoundError

VERSION = 1
WRITER = "Fermata-Writer"
PATIENCE_SECONDS = 20


class Malformed(Exception):
    """Bytes that are no message of the engine."""


def decode(data):
    """Reads one MessagePack value and refuses a key that stands twice."""

    def pairs(items):
        if len(items) != len(dict(items)):
            raise Malformed("a key stands twice")
        return dict(items)

    return msgpack.unpackb(data, object_pairs_hook=pairs)


def open_envelope(data, kind):
    envelope = decode(data)
    if envelope["kind"] != kind or envelope["version"] != VERSION:
        raise Malformed(f"expected {kind} in version {VERSION}, found {envelope['kind']} {envelope['version']}")
    return envelope, decode(envelope["body"])


def journal_records(data):
    """Yields (index, header bytes, salt, payload bytes) of a journal frame."""
    envelope, body = open_envelope(data, "journal")
    for index, record in enumerate(body["records"], envelope["first_record_index"]):
        yield index, record["header"], record["salt"], record["payload"]


def audit_entries(data):
    """Yields (index, header bytes, commitment, leaf) of an audit frame."""
    _, body = open_envelope(data, "audit")
    for entry in body["entries"]:
        yield entry["index"], entry["header"], entry["commitment"], entry["leaf"]


def commitment_to(salt, payload):
    return hmac.new(salt, payload, hashlib.sha256).digest()


def leaf_of(header, commitment):
    entry = b"\x01" + len(header).to_bytes(4, "big") + header + commitment
    return hashlib.sha256(b"\x00" + entry).digest()


async def stored(jetstream, stream, first=1):
    """Yields every message of a stream that the engine wrote."""
    last = (await jetstream.stream_info(stream)).state.last_seq
    for sequence in range(first, last + 1):
        try:
            message = await jetstream.get_msg(stream, seq=sequence)
        except NotFoundError:
            continue
        if (message.headers or {}).get(WRITER):
            yield message


async def partitions(jetstream):
    names = [info.config.name for info in await jetstream.streams_info()]
    return sorted(name.removeprefix("JOURNAL_") for name in names if name.startswith("JOURNAL_"))


async def find_run(jetstream, event_id):
    """Returns the run that the event started: the journal alone holds what an event was."""
    for _ in range(PATIENCE_SECONDS * 20):
        for partition in await partitions(jetstream):
            async for message in stored(jetstream, f"JOURNAL_{partition}"):
                for _, header, _, payload in journal_records(message.data):
                    if decode(header)["kind"] != "event.started":
                        continue
                    started = decode(payload)
                    if started["event"]["id"] == event_id:
                        return started["runs"][0]
        await asyncio.sleep(0.05)
    raise Malformed(f"event {event_id} started no run")


async def follow(feed, run):
    """Prints the entries of a run until it has succeeded."""
    while True:
        message = await feed.next_msg(timeout=PATIENCE_SECONDS)
        for index, header, _, _ in audit_entries(message.data):
            header = decode(header)
            if header.get("run") != run:
                continue
            print("entry", index, header["kind"], header.get("node", "-"), header.get("attempt", "-"))
            if header["kind"] == "run.succeeded":
                return


async def check(jetstream, partition):
    """Holds each stored entry against the record that it must come from."""
    # The log is read first: what the journal has past its end is not audited yet.
    entries = [entry async for message in stored(jetstream, f"AUDIT_{partition}") for entry in audit_entries(message.data)]
    records = [record async for message in stored(jetstream, f"JOURNAL_{partition}") for record in journal_records(message.data)]
    if len(entries) > len(records):
        raise Malformed(f"partition {partition} has {len(entries)} entries for {len(records)} records")
    for number, (entry, record) in enumerate(zip(entries, records)):
        index, header, salt, payload = record
        commitment = commitment_to(salt, payload)
        if entry != (number, header, commitment, leaf_of(header, commitment)) or index != number:
            raise Malformed(f"entry {number} of partition {partition} is not the one of its record")
    print("checked", f"AUDIT_{partition}", len(entries))


async def main(url, tenant, kind, data):
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    feed = await connection.subscribe(f"fermata.audit.{tenant}")
    event = {
        "specversion": "1.0", "id": str(uuid.uuid4()), "source": "/examples/python",
        "type": kind, "tenant": tenant, "data": json.loads(data),
    }  # fmt: skip
    await jetstream.publish(f"fermata.events.{tenant}.{kind}", json.dumps(event).encode())
    await follow(feed, await find_run(jetstream, event["id"]))
    for partition in await partitions(jetstream):
        await check(jetstream, partition)
    await connection.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except Malformed as problem:
        print("wrong:", problem)
        sys.exit(1)
