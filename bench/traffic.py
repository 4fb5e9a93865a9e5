"""A shop's usual traffic: what its customers do, as bodies for ingest, and the clients that post them."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from collections.abc import Callable
from itertools import accumulate
from typing import cast

WRITE_KEY = "bench-write-key"

_HEADERS = (
    "Host: bench\r\nContent-Type: application/json\r\n"
    f"Authorization: Basic {b64encode(f'{WRITE_KEY}:'.encode()).decode()}\r\n"
)

CONTEXT = (
    '{"library":{"name":"analytics-python","version":"2.3.4"},"locale":"nb-NO","timezone":"Europe/Oslo",'
    '"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",'
    '"page":{"url":"https://lamps.example/p/lamp-17","referrer":"https://lamps.example/","title":"Lamp 17"}}'
)
PRODUCT = (
    '{"product_id":"p%d","name":"Desk lamp, brass","category":"lamps","price":49.9,"quantity":1,"currency":"EUR",'
    '"url":"https://lamps.example/p/17","image_url":"https://lamps.example/i/17.jpg"}'
)
ORDER = (
    '{"order_id":"o-%%s","total":%d.9,"currency":"EUR","products":[{"product_id":"p1","name":"Desk lamp, brass",'
    '"price":49.9,"quantity":1}]}'
)

# In a thousand events. Of those who come, few fill a cart and fewer order.
MIX = {
    "Page Viewed": 460,
    "Product Viewed": 430,
    "identify": 60,
    "Product Added": 25,
    "Product Removed": 5,
    "Checkout Started": 12,
    "Order Completed": 8,
}


def customer(number: int) -> str:
    return f"customer-{number}"


def address(number: int) -> str:
    return f"c{number}@example.com"


def traits(number: int) -> str:
    """What a shop tells of a customer; two in five want to hear of their carts."""
    said = "true" if number % 5 < 2 else "false"
    return (
        f'{{"email":"{address(number)}","name":"Ann Lund","country":"NO","birthday":"1990-{number % 12 + 1:02}-15",'
        f'"consent":{{"cart-reminders":{said},"birthday":{said}}}}}'
    )


class Traffic:
    """Events one after the other, the same for the same seed. Every event is another customer's, by chance."""

    def __init__(self, customers: int, seed: int, run: str) -> None:
        self._customers = customers
        self._chance = random.Random(seed)
        self._run = run
        self._names = list(MIX)
        self._shares = list(accumulate(MIX.values()))
        self.made = 0

    def event(self, name: str, number: int, properties: str) -> str:
        self.made += 1
        id = f"{self._run}-{self.made:08}"
        head = f'{{"userId":"{customer(number)}","messageId":"{id}","context":{CONTEXT},'
        if name == "identify":
            return f'{head}"type":"identify","traits":{traits(number)}}}'
        return f'{head}"type":"track","event":"{name}","properties":{properties}}}'

    def order(self, number: int) -> str:
        """This customer orders something."""
        properties = ORDER % self._chance.randrange(20, 300) % f"{self._run}-{self.made}"
        return self.event("Order Completed", number, properties)

    def usual(self) -> tuple[str, str]:
        """The next event by the mix, and its name."""
        name = self._chance.choices(self._names, cum_weights=self._shares)[0]
        number = self._chance.randrange(self._customers)
        if name == "Order Completed":
            return name, self.order(number)
        properties = "{}" if name == "Page Viewed" else PRODUCT % self._chance.randrange(300)
        return name, self.event(name, number, properties)

    def batch(self, events: int) -> bytes:
        """A body for /v1/batch."""
        made = [self.usual()[1] for _ in range(events)]
        return f'{{"batch":[{",".join(made)}]}}'.encode()


class Client(asyncio.Protocol):
    """One connection to ingest, kept alive: a request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            self._read = b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("ingest closed the connection."))

    def get(self, path: str) -> asyncio.Future[int]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        return self._answer

    def post(self, path: str, body: bytes) -> asyncio.Future[int]:
        """The status that it is answered with."""
        self._answer = asyncio.get_running_loop().create_future()
        head = f"POST {path} HTTP/1.1\r\n{_HEADERS}Content-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        return self._answer

    def close(self) -> None:
        self._transport.close()


async def connect(port: int) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


class MailSink(asyncio.Protocol):
    """The least SMTP server that a pipelining client can talk to. `arrived` is called with each mail's recipient."""

    def __init__(self, arrived: Callable[[str], None]) -> None:
        self._arrived = arrived
        self._read = b""
        self._recipient = ""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._read += data
        answers: list[bytes] = []
        while True:
            if self._in_data:
                end = self._read.find(b"\r\n.\r\n")
                if end < 0:
                    break
                self._read, self._in_data = self._read[end + 5 :], False
                self._arrived(self._recipient)
                answers.append(b"250 2.0.0 taken\r\n")
                continue
            line, found, rest = self._read.partition(b"\r\n")
            if not found:
                break
            self._read = rest
            answers.append(self._answer(line))
        if answers:
            self._transport.write(b"".join(answers))

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
        if verb == b"RCPT":
            self._recipient = line.partition(b"<")[2].partition(b">")[0].decode()
        if verb == b"DATA":
            self._in_data = True
            return b"354 go on\r\n"
        if verb == b"QUIT":
            return b"221 2.0.0 bye\r\n"
        return b"250 2.0.0 ok\r\n"
