"""How much ingest takes on one core, beside a bare ASGI application that does nothing but decode.

    python bench/ingest.py [--seconds 3] [--connections 32]

Both are served by uvicorn (uvloop, httptools) in a process of their own, and asked by this one. The log behind ingest
confirms at once and keeps nothing, so this is the price of the protocol: HTTP, decoding, admission, encoding, batching.
Events per second of the server's CPU time are given beside those per second, since the asking costs a core as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
from base64 import b64encode
from collections.abc import Sequence
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, cast

import msgspec
import uvicorn
import uvloop

from services.ingest.main import build
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from shared.clock import SystemClock
from shared.log.port import Entry
from shared.runtime import Runtime

EVENT = {
    "type": "track",
    "userId": "customer-12345",
    "anonymousId": None,
    "event": "Product Added",
    "messageId": "0b6e4c9a-3b6d-4c2e-9d5a-6f6f0c1f7a11",
    "timestamp": "2025-03-01T12:30:00.123+00:00",
    "integrations": {},
    "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
    "properties": {
        "cart_id": "c-1234",
        "product_id": "p-1",
        "sku": "SKU-1",
        "category": "Shoes",
        "name": "Blue running shoe",
        "brand": "Acme",
        "price": 49.90,
        "quantity": 1,
        "currency": "EUR",
        "url": "https://shop.example/products/1",
        "image_url": "https://shop.example/products/1.jpg",
    },
}


class Sink:
    """A log that confirms at once and keeps nothing."""

    partitions = 12

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        await asyncio.sleep(0)


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads the body, decodes it, answers."""
    message = await receive()
    msgspec.json.decode(message["body"])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"16")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"success":true}'})


def serve(which: str, listening: socket.socket, pipe: Connection) -> None:
    async def run() -> None:
        app: Any = bare
        if which == "ingest":
            runtime = Runtime(Sink(), SystemClock(), None)  # type: ignore[arg-type]
            ingest = build(runtime, IngestSettings.read(), GivenSources({"shop": ["key"]}))
            await ingest.start()
            app = ingest.app
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", access_log=False, log_level="warning"))
        serving = asyncio.create_task(server.serve([listening]))
        loop = asyncio.get_running_loop()
        pipe.send("up")
        while await loop.run_in_executor(None, pipe.recv) == "time":
            used = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(used.ru_utime + used.ru_stime)
        server.should_exit = True
        await serving

    uvloop.run(run())


class Client(asyncio.Protocol):
    """Posts the same request again as soon as it is answered."""

    def __init__(self, request: bytes) -> None:
        self._request, self.answers, self.wrong = request, 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        # Head and body come in two writes; the body ends the answer.
        if data.startswith(b"HTTP/1.1") and not data.startswith(b"HTTP/1.1 200"):
            self.wrong += 1
        if data.endswith(b"}"):
            self.answers += 1
            self._transport.write(self._request)


async def ask(port: int, request: bytes, connections: int, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Client(request), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.sleep(seconds)
    for transport, _ in made:
        transport.close()
    assert not sum(client.wrong for _, client in made)
    return sum(client.answers for _, client in made)


def measure(which: str, path: str, body: bytes, connections: int, seconds: float) -> tuple[float, float]:
    """Requests per second, and per second of the server's CPU time."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=serve, args=(which, listening, theirs))
    process.start()
    assert ours.recv() == "up"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {b64encode(b'key:').decode()}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    port = listening.getsockname()[1]
    uvloop.run(ask(port, request, connections, 0.5))
    ours.send("time")
    before = ours.recv()
    started = perf_counter()
    answers = uvloop.run(ask(port, request, connections, seconds))
    took = perf_counter() - started
    ours.send("time")
    used = ours.recv() - before
    ours.send("end")
    process.join()
    return answers / took, answers / used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    single = json.dumps(EVENT).encode()
    batch = json.dumps({"batch": [{**EVENT, "userId": f"customer-{n}"} for n in range(50)]}).encode()
    for name, path, body, events in (("single", "/v1/track", single, 1), ("batches of 50", "/v1/batch", batch, 50)):
        figures = {}
        for which in ("bare", "ingest"):
            figures[which] = measure(which, path, body, options.connections, options.seconds)
            wall, cpu = (round(figure * events) for figure in figures[which])
            print(f"{name:14} {which:7} {wall:>9,} events/s {cpu:>9,} events per CPU second")  # noqa: T201
        ratio = figures["ingest"][1] / figures["bare"][1]
        print(f"{name:14} ratio   {ratio:9.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
