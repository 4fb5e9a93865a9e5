"""A million bodies that nobody should post, at ingest: none may be answered with a fault of ours, or hold it up.

    make bench-long ONLY=abuse
    python -m bench.abuse [--bodies 1000000] [--seed 1]

They are made from good calls by cutting, doubling, swapping and flipping bytes, by values known to hurt, and by
packing; the same seed makes the same bodies. Ingest is asked as an ASGI application, behind which a log keeps nothing.
Where an answer is none that the protocol has, the body is printed, and there is no figure but a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import resource
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from bench.measure import Series
from services.ingest.api import ROUTES
from services.ingest.calls import CALLS
from services.ingest.main import Ingest, build
from services.ingest.refusals import REASONS
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from shared.clock import SystemClock
from shared.log.port import Entry
from shared.runtime import Runtime

HURTING = [
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"9" * 30,
        b"18446744073709551616",
        b"0x1",
        b"01",
        b"1.",
        b"null",
        b"true",
    ),
    *(b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b'"\\x"', b'"', b"\xef\xbb\xbf"),
    *(
        b'"undefined"',
        b'" NULL "',
        b'"0001-01-01"',
        b'"9999-12-31T23:59:59-23:59"',
        b'"0000-00-00"',
        b'""',
        b'"' + b"a" * 300,
    ),
    *(b"[" * 70, b'{"a":' * 70, b"]" * 9, b"}", b",", b":", b"{}", b"[]", b"\0", b"//", b"/* */", b"'"),
    *(b'"userId"', b'"batch"', b'"context"', b'"timestamp"', b'"messageId"', b'"writeKey"', b'"traits"', b'"sentAt"'),
]
_KEY = (b"authorization", b"Basic " + b64encode(b"key:"))
_HEADERS: list[list[tuple[bytes, bytes]]] = [
    *([_KEY],) * 8,
    [],
    [(b"authorization", b"Basic \xff\xfe")],
    [(b"authorization", b"Basic " + b64encode(b"\xff:"))],
    [_KEY, (b"content-length", b"9" * 40)],
    [_KEY, (b"content-encoding", b"gzip")],
    [_KEY, (b"traceparent", b"00-" + b"0" * 60)],
]


class Sink:
    """A log that confirms at once and keeps nothing."""

    partitions = 12

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        await asyncio.sleep(0)


def good() -> list[bytes]:
    calls = [{"type": call.type, "writeKey": "key", "sentAt": "2025-03-01T12:30:00Z", **call.example} for call in CALLS]
    batch = {"batch": calls, "writeKey": "key", "context": {"ip": "::1"}, "integrations": {"All": True}}
    return [json.dumps(body).encode() for body in (*calls, batch, batch)]


def spoiled(dice: random.Random, bodies: list[bytes]) -> bytes:
    body = dice.choice(bodies)
    for _ in range(dice.choice((0, 1, 1, 2, 4, 9))):
        at, to = sorted(dice.randrange(len(body) + 1) for _ in range(2))
        match dice.randrange(7):
            case 0:
                body = body[:at]
            case 1:
                body = body[:at] + body[to:]
            case 2:
                body = body[:to] + body[at:]
            case 3:
                body = body[:at] + bytes([dice.randrange(256)]) + body[at + 1 :]
            case 4:
                body = body[:at] + dice.choice(HURTING) + body[at:]
            case 5:
                # A value in the place of another: what stands between a colon and the next comma.
                begin = body.find(b":", at) + 1
                end = body.find(b",", begin)
                if begin and end > 0:
                    body = body[:begin] + dice.choice(HURTING) + body[end:]
            case _:
                other = dice.choice(bodies)
                body = body[:at] + other[dice.randrange(len(other)) :]
        body = body[:600_000]
    if dice.random() < 0.05:
        packed = gzip.compress(body, 1)
        body = packed if dice.random() < 0.5 else packed[: dice.randrange(len(packed))]
    return body


async def ask(ingest: Ingest, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    await ingest.app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def wrong(status: int, answer: bytes) -> bool:
    """Whether the protocol has no such answer."""
    said = json.loads(answer)
    if status == 200:
        return said["success"] is not True or not all(
            {"index", "code", "message"} <= one.keys() for one in said["rejected"]
        )
    return status >= 500 or REASONS[said["code"]].status != status or not said["message"]


async def run(bodies: int, seed: int) -> dict[str, float]:
    """Bodies per second (with their making), milliseconds of the slowest answer, and megabytes that memory grew by
    after the first tenth. Raises RuntimeError where an answer was wrong."""
    runtime = Runtime(Sink(), SystemClock(), None)  # type: ignore[arg-type]
    ingest = build(runtime, IngestSettings.read(ingest_flush_seconds=0), GivenSources({"shop": ["key"]}))
    await ingest.start()
    dice, begun, paths = random.Random(seed), perf_counter(), sorted(ROUTES)
    answers: Counter[str] = Counter()
    slowest, faults, asked, first = 0.0, 0, good(), 0
    for number in range(bodies):
        path, headers, body = dice.choice(paths), dice.choice(_HEADERS), spoiled(dice, asked)
        started = perf_counter()
        status, answer = await ask(ingest, path, headers, body)
        slowest = max(slowest, perf_counter() - started)
        answers[f"{status} {'' if status == 200 else json.loads(answer)['code']}"] += 1
        if wrong(status, answer):
            faults += 1
            print(f"{path} {headers} {body!r}\n  -> {status} {answer!r}", file=sys.stderr)  # noqa: T201
        if number == bodies // 10:
            first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await ingest.stop()
    took = perf_counter() - begun
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) / 1024
    for answer_code, count in answers.most_common():
        print(f"{count:>9,}  {answer_code}")  # noqa: T201
    if faults:
        raise RuntimeError(f"{faults} of {bodies:,} bodies, seed {seed}, were answered wrongly.")
    return {"bodies a second": bodies / took, "slowest answer, ms": slowest * 1000, "memory grown, MB": grown}


def measure(folder: Path) -> dict[str, float]:
    return uvloop.run(run(1_000_000, 1))


SERIES = (Series("abuse of ingest, a million bodies", "", run=measure, rounds=1, long=True, seconds=3600),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(uvloop.run(run(options.bodies, options.seed)))  # noqa: T201


if __name__ == "__main__":
    main()
