"""Webhooks, called over real sockets: signed, tried again, and never where only we can go."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import pytest
from conftest_mailer import NOON, PostOffice, compose
from msgspec.structs import replace
from patience import PATIENCE, until

from services.mailer.composing import Composer, call
from services.mailer.links import Links
from services.mailer.sending import Sending
from services.mailer.transport import Accepted, Deferred, Receipt, Rejected
from services.mailer.webhooks import GatewayTransport, WebhookTransport, is_public
from services.mailer.worker import MailerProcessor
from shared.contracts.messages import WEBHOOK, MessageRequested
from shared.language.playbook import Message
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.telemetry import COUPONS_UNANNOUNCED

KEY = b"k" * 32
HOUR = timedelta(hours=1)


@dataclass
class Receiver:
    """A web server that verifies each call as the specification says, and answers as it was told."""

    port: int = 0
    answers: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    bodies: list[dict[str, object]] = field(default_factory=list)
    speaks: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.speaks.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?shop=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        assert head[0] == "POST /hooks?shop=1 HTTP/1.1"
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mine = b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{mine}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < PATIENCE
        self.ids.append(headers["webhook-id"])
        self.bodies.append(json.loads(body))
        await self.speaks.wait()
        answer = self.answers.pop(0) if self.answers else "204 No Content"
        if answer != "hang up":
            words = "no_such_address" if "no_such" in answer else "no"
            said = "" if answer.startswith("204") else f"Content-Length: {len(words)}\r\n\r\n{words}"
            writer.write(f"HTTP/1.1 {answer}\r\n{said or chr(13) + chr(10)}".encode())
            await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving(*answers: str) -> AsyncIterator[Receiver]:
    receiver = Receiver(answers=list(answers))
    server = await asyncio.start_server(receiver.serve, "127.0.0.1")
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


def asked(url: str, **changes: object) -> MessageRequested:
    request = MessageRequested(
        as_of=NOON,
        id="w1",
        customer="anna",
        address=None,
        message="tell",
        topic="",
        journey="cart",
        enrollment="e1",
        step="tell",
        due=NOON,
        expires=NOON + timedelta(hours=72),
        channel=WEBHOOK,
        data={"url": url, "type": "cart.tell", "key": "c1", "with": {"total": 50}},
        v=2,
    )
    return msgspec.structs.replace(request, **changes)


async def called(url: str, *, to_private: bool = True) -> Receipt:
    transport = WebhookTransport([KEY], 4, to_private=to_private)
    await transport.start()
    try:
        return await transport.deliver(call(asked(url)), asyncio.get_running_loop().time() + PATIENCE)
    finally:
        await transport.close()


async def test_a_call_is_signed_and_says_what_it_is_about() -> None:
    async with receiving() as receiver:
        assert await called(receiver.url) == Accepted("204")
    assert receiver.bodies == [
        {
            "type": "cart.tell",
            "timestamp": "2026-03-02T11:00:00Z",
            "customer": "anna",
            "key": "c1",
            "journey": "cart",
            "step": "tell",
            "data": {"total": 50},
        }
    ]


@pytest.mark.parametrize(
    ("answer", "receipt"),
    [
        ("500 Oh", Deferred("500 no", "failing")),
        ("404 Not Found", Deferred("404 no", "failing")),
        ("422 Oh", Deferred("422 no", "deferred")),
        ("302 Found\r\nLocation: http://169.254.169.254/", Deferred("302 no", "redirected")),
        ("410 Gone", Rejected("410 no", False, "gone")),
    ],
)
async def test_what_is_no_yes_is_tried_again_unless_the_address_is_gone(answer: str, receipt: Receipt) -> None:
    async with receiving(answer) as receiver:
        assert await called(receiver.url) == receipt


async def test_a_server_that_hangs_up_or_is_not_there_is_tried_again() -> None:
    async with receiving("hang up") as receiver:
        hung_up = await called(receiver.url)
    away = await called(receiver.url)
    for receipt in (hung_up, away):
        assert isinstance(receipt, Deferred)
        assert receipt.reason == "connection"


async def test_of_an_answer_without_end_the_beginning_is_read() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 Oh\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"no" * 100_000)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        hung_up.set()

    hung_up = asyncio.Event()
    async with await asyncio.start_server(endless, "127.0.0.1") as server:
        receipt = await called(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await hung_up.wait()
    assert receipt == Deferred("500 " + "no" * 150, "failing")


@pytest.mark.parametrize("path", ["/a b", "/\r\nX-Mine: 1", "/\0", "/ø"])
async def test_an_address_that_cannot_be_written_in_a_request_is_never_called(path: str) -> None:
    async with receiving() as receiver:
        receipt = await called(f"http://127.0.0.1:{receiver.port}{path}")
    assert isinstance(receipt, Rejected)
    assert (receipt.reason, receiver.ids) == ("invalid_address", [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"])
async def test_a_private_address_is_never_called(host: str) -> None:
    async with receiving() as receiver:
        receipt = await called(f"http://{host}:{receiver.port}/hooks?shop=1", to_private=False)
    assert isinstance(receipt, Rejected)
    assert receipt.reason == "private_address"
    assert receiver.ids == []


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.53", "224.0.0.1",
     "fe80::1%eth0", "fc00::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::",
     "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::a9fe:a9fe", "3fff::1", "5f00::1", "2001:0:7f00:1::", "192.0.0.8"],
)  # fmt: skip
def test_only_the_internet_at_large_is_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("93.184.215.14")
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    assert is_public("64:ff9b::5db8:d70e")


async def open_both(post_office: PostOffice) -> tuple[Worker, WebhookTransport]:
    """A worker of mails and webhooks."""
    transport = WebhookTransport([KEY], 4, to_private=True)
    await transport.start()
    clock, shelf = post_office.clock, post_office.shelf
    mails = Sending(post_office.postbox, compose, shelf, clock, timedelta(minutes=1))
    composer = Composer(Links(b"s" * 32, "http://mailer"))
    calls = Sending(transport, composer, shelf, clock, timedelta(minutes=1), "webhook")
    runtime = Runtime(post_office.log, clock, post_office.database, post_office.installation)
    worker = Worker(runtime, MailerProcessor(mails, shelf, calls), post_office.settings)
    await worker.start()
    post_office.workers.append(worker)
    return worker, transport


async def test_a_webhook_is_called_again_under_its_id_until_somebody_answers(post_office: PostOffice) -> None:
    await post_office.activate()
    async with receiving("503 Busy", "hang up") as receiver:
        _, transport = await open_both(post_office)
        await post_office.record(asked(receiver.url))
        await post_office.ask("m1")
        await post_office.settled(m1="sent", w1="held")
        await post_office.pass_time(HOUR)
        await until(lambda: _came(receiver, 2))
        await post_office.settled(w1="held")
        await post_office.pass_time(HOUR)
        await post_office.settled(w1="sent")
        await transport.close()
    assert receiver.ids == ["w1", "w1", "w1"]
    assert post_office.postbox.ids == ["m1"]
    assert [(name, reason) for name, reason, _ in await post_office.told("w1")] == [("Webhook Sent", "")]


async def _came(receiver: Receiver, count: int) -> bool:
    return len(receiver.ids) >= count


async def test_a_receiver_that_is_silent_leaves_half_of_the_connections_to_others(post_office: PostOffice) -> None:
    await post_office.activate()
    async with receiving() as silent, receiving() as well:
        silent.speaks.clear()
        _, transport = await open_both(post_office)
        ids = [f"s{number}" for number in range(12)]
        await post_office.record(*(asked(silent.url, id=id, customer=f"c-{id}") for id in ids))
        await until(lambda: _came(silent, transport.connections // 2))
        await post_office.record(asked(well.url, id="w1"))
        await post_office.settled(w1="sent")
        assert len(silent.ids) == transport.connections // 2
        silent.speaks.set()
        await post_office.settled(**dict.fromkeys(ids, "sent"))
        await transport.close()


async def test_a_webhook_that_nobody_answers_fails_when_it_expires(post_office: PostOffice) -> None:
    await post_office.activate()
    async with receiving() as receiver:
        pass
    _, transport = await open_both(post_office)
    await post_office.record(asked(receiver.url, expires=NOON + HOUR))
    await post_office.settled(w1="held")
    await post_office.pass_time(HOUR)
    await post_office.settled(w1="failed")
    await transport.close()
    assert [(name, reason) for name, reason, _ in await post_office.told("w1")] == [
        ("Webhook Failed", "retries_ran_out")
    ]


async def test_a_code_that_the_shop_is_not_told_of_is_counted(post_office: PostOffice) -> None:
    await post_office.activate()
    missed = COUPONS_UNANNOUNCED.labels("ten")
    before = missed._value.get()
    async with receiving("204 No Content", "410 Gone") as receiver:
        _, transport = await open_both(post_office)
        for number in (1, 2):
            await post_office.record(asked(receiver.url, id=f"w{number}", message="coupons/ten", step="code"))
            await post_office.settled(**{f"w{number}": "sent" if number == 1 else "failed"})
        await transport.close()
    assert missed._value.get() - before == 1


async def test_a_webhook_of_a_draft_is_not_called(post_office: PostOffice) -> None:
    await post_office.activate()
    async with receiving() as receiver:
        _, transport = await open_both(post_office)
        await post_office.record(asked(receiver.url, draft=True))
        await post_office.settled(w1="skipped")
        await transport.close()
    assert receiver.ids == []
    assert [(name, reason) for name, reason, _ in await post_office.told("w1")] == [("Webhook Skipped", "draft")]


async def test_a_text_message_is_handed_to_the_gateway_until_it_says_yes_or_never(post_office: PostOffice) -> None:
    book = post_office.shelf.playbook
    words = Message("cart-reminder", "", "", {"": {"sms.txt": "Hello {{ traits.first_name }}"}})
    post_office.shelf.playbook = replace(book, messages={"cart-reminder": words})
    await post_office.activate()
    async with receiving("503 Busy", "204 No Content", "410 no_such_address") as receiver:
        gateway = GatewayTransport(receiver.url, [KEY], 4)
        await gateway.start()
        composer, minute = Composer(Links(b"s" * 32, "http://mailer")), timedelta(minutes=1)
        clock, shelf = post_office.clock, post_office.shelf
        texts = Sending(gateway, composer, shelf, clock, minute, "sms")
        pushes = Sending(gateway, composer, shelf, clock, minute, "push", there=False)
        runtime = Runtime(post_office.log, clock, post_office.database, post_office.installation)
        worker = Worker(runtime, MailerProcessor(texts, shelf, pushes), post_office.settings)
        await worker.start()
        post_office.workers.append(worker)

        def text(id: str, **changes: object) -> MessageRequested:
            data = {"traits": {"first_name": "Anna", "phone": "+47 40000000", "push_token": "t"}}
            return msgspec.structs.replace(post_office.request(id, topic="receipts"), channel="sms", data=data, v=2)

        await post_office.record(text("s1"), msgspec.structs.replace(text("p1"), channel="push"))
        await post_office.settled(s1="held", p1="skipped")
        await post_office.pass_time(HOUR)
        await post_office.settled(s1="sent")
        await post_office.record(text("s2"))
        await post_office.settled(s2="failed")
        await post_office.record(text("s3"))
        await post_office.settled(s3="skipped")
        await gateway.close()
    assert receiver.ids == ["s1", "s1", "s2"]
    assert receiver.bodies[0] == {
        "channel": "sms",
        "to": "+4740000000",
        "text": "Hello Anna",
        "message_id": "s1",
        "customer": "anna",
    }
    told = [(await post_office.told(id))[0][:2] for id in ("s1", "p1", "s2", "s3")]
    assert told == [
        ("SMS Sent", ""),
        ("Push Notification Skipped", "no_channel"),
        ("SMS Failed", "no_such_address"),
        ("SMS Skipped", "suppressed"),
    ]
