"""Handing over to real and to rude mail servers: the receipt must say no more and no less than is known."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from certificates import certificate
from patience import PATIENCE
from smtp_servers import Keeping, keeping_server, knows, replying, say, scripted_server, takes_a_mail

from services.mailer.relay import Relay
from services.mailer.rendering import Rendered
from services.mailer.smtp import SmtpTransport, Timing
from services.mailer.transport import Accepted, Deferred, Mail, Receipt, Rejected, Unknown
from shared.errors import RapportError

UNHURRIED = Timing(connect=PATIENCE, answer=PATIENCE, idle=PATIENCE, verify_after=PATIENCE)


def mail(recipient: str = "anna@example.org", body: bytes = b"Subject: x\r\n\r\nhello\r\n") -> Mail:
    rendered = Rendered("x", "", "hello", (), "en", "https://mail.example/u/x")
    return Mail(None, "hello@lamps.example", recipient, body, rendered, {})  # type: ignore[arg-type]


@asynccontextmanager
async def transport(url: str, **options: Any) -> AsyncIterator[SmtpTransport]:
    made = SmtpTransport(Relay.of(url), hello="mailer.example", **({"timing": UNHURRIED} | options))
    await made.start()
    yield made
    await made.close()


async def deliver(to: SmtpTransport, what: Mail | None = None, within: float = PATIENCE) -> Receipt:
    return await to.deliver(what or mail(), asyncio.get_running_loop().time() + within)


async def receipt_from(within: float = PATIENCE, timing: Timing = UNHURRIED, **replies: str) -> Receipt:
    async with scripted_server(replying(**replies)) as port:
        async with transport(f"smtp://127.0.0.1:{port}", timing=timing) as to:
            return await deliver(to, within=within)


# Real servers.


async def test_mail_arrives_as_it_was_made() -> None:
    body = b"Subject: x\r\n\r\n.\r\n..\r\n.start\r\nFrom me\r\nend without a line end"
    async with keeping_server(kept := Keeping()) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        receipt = await deliver(to, mail(body=body))
        assert receipt == Accepted("250 2.0.0 kept")
    assert kept.envelopes[0].content == body + b"\r\n"
    assert kept.envelopes[0].mail_from == "hello@lamps.example"
    assert kept.envelopes[0].rcpt_tos == ["anna@example.org"]


async def test_connections_are_used_again_and_at_most_as_many_as_allowed() -> None:
    async with (
        keeping_server(kept := Keeping()) as port,
        transport(f"smtp://127.0.0.1:{port}", connections=3) as to,
    ):
        receipts = await asyncio.gather(*(deliver(to) for _ in range(40)))
    assert all(isinstance(receipt, Accepted) for receipt in receipts)
    assert len(kept.envelopes) == 40
    assert len(kept.sessions) <= 3


async def test_connection_is_left_after_its_share_of_mails() -> None:
    timing = Timing(mails=2)
    async with (
        keeping_server(kept := Keeping()) as port,
        transport(f"smtp://127.0.0.1:{port}", timing=timing) as to,
    ):
        for _ in range(6):
            assert isinstance(await deliver(to), Accepted)
    assert len(kept.sessions) == 3


async def test_refused_recipient_leaves_the_connection_of_use() -> None:
    async with keeping_server(kept := Keeping()) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        assert await deliver(to, mail("nobody@example.org")) == Rejected("550 5.1.1 no such user", True)
        assert await deliver(to, mail("later@example.org")) == Deferred("451 4.7.1 greylisted, come back", "greylisted")
        assert isinstance(await deliver(to), Accepted)
    assert len(kept.envelopes) == 1
    assert kept.envelopes[0].rcpt_tos == ["anna@example.org"]


async def test_starttls_and_login(tmp_path: Path) -> None:
    context, file = certificate(tmp_path)
    options = {"tls_context": context, "authenticator": knows("rapport", "p@ss word"), "auth_required": True}
    async with keeping_server(kept := Keeping(), **options) as port:
        async with transport(f"smtp://rapport:p%40ss%20word@127.0.0.1:{port}?ca={file}") as to:
            assert isinstance(await deliver(to), Accepted)
        async with transport(f"smtp://rapport:wrong@127.0.0.1:{port}?ca={file}") as to:
            receipt = await deliver(to)
            assert isinstance(receipt, Deferred)
            assert receipt.reason == "login"
            assert receipt.reply.startswith("535")
    assert kept.encrypted == [True]
    assert kept.logged_in == [True]


async def test_tls_from_the_first_byte(tmp_path: Path) -> None:
    context, file = certificate(tmp_path)
    async with keeping_server(kept := Keeping(), ssl_context=context) as port:
        async with transport(f"smtps://127.0.0.1:{port}?ca={file}", timing=Timing()) as to:
            assert isinstance(
                await deliver(to, mail(body=b"Subject: x\r\n\r\n" + (b"x" * 900 + b"\r\n") * 2_000)), Accepted
            )
    assert len(kept.envelopes) == 1


async def test_the_other_event_loop_speaks_the_same(tmp_path: Path) -> None:
    """The services run on uvloop, whose transports are classes of its own."""
    context, file = certificate(tmp_path)
    kept = Keeping()

    async def session() -> list[Receipt]:
        async with keeping_server(kept, tls_context=context) as port:
            async with transport(f"smtp://127.0.0.1:{port}?tls=required&ca={file}", timing=Timing()) as to:
                return [await deliver(to), await deliver(to, mail("nobody@example.org")), await deliver(to)]

    receipts = await asyncio.to_thread(uvloop.run, session())
    assert [type(receipt) for receipt in receipts] == [Accepted, Rejected, Accepted]
    assert kept.encrypted == [True, True]


async def test_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    context, _ = certificate(tmp_path)
    async with keeping_server(kept := Keeping(), tls_context=context) as port:
        async with transport(f"smtp://127.0.0.1:{port}") as to:
            receipt = await deliver(to)
            assert receipt == Deferred("no encryption: CERTIFICATE_VERIFY_FAILED", "tls")
    assert not kept.envelopes


async def test_address_outside_ascii_goes_only_where_it_is_understood() -> None:
    async with keeping_server(kept := Keeping()) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        assert isinstance(await deliver(to, mail("bjørn@example.org")), Accepted)
    assert kept.envelopes[0].rcpt_tos == ["bjørn@example.org"]
    assert kept.envelopes[0].smtp_utf8
    async with scripted_server(replying()) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        receipt = await deliver(to, mail("bjørn@example.org"))
    assert isinstance(receipt, Rejected)
    assert not receipt.suppress


# Rude servers: what was refused, in words.


@pytest.mark.parametrize("extensions", ["PIPELINING", "HELP"])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
async def test_explicit_4xx_is_deferred_at_any_stage(stage: str, extensions: str) -> None:
    receipt = await receipt_from(extensions=extensions, **{stage: "452 4.2.2 full"})
    assert receipt == Deferred("452 4.2.2 full", "deferred")


@pytest.mark.parametrize("extensions", ["PIPELINING", "HELP"])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
async def test_explicit_5xx_is_rejected_at_any_stage(stage: str, extensions: str) -> None:
    receipt = await receipt_from(extensions=extensions, **{stage: "550-5.7.1 we do not\r\n550 5.7.1 like this"})
    assert receipt == Rejected("550 5.7.1 we do not 5.7.1 like this", False)


@pytest.mark.parametrize(
    ("reply", "suppress"),
    [
        ("550 5.1.1 nobody here", True),
        ("550 5.1.10 null MX", True),
        ("550 5.7.1 no such user says the policy", False),
        ("550 No such user here", True),
        ("553 mailbox not found", True),
        ("550 you are on a list", False),
        ("552 5.2.2 mailbox full", False),
    ],
)
async def test_only_an_address_that_is_not_there_is_suppressed(reply: str, suppress: bool) -> None:
    assert await receipt_from(rcpt=reply) == Rejected(reply, suppress)


async def test_server_that_wants_a_login_blames_no_mail() -> None:
    assert await receipt_from(mail="530 5.7.0 log in first") == Deferred("530 5.7.0 log in first", "login")


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
async def test_server_that_is_closing_defers(stage: str) -> None:
    assert await receipt_from(**{stage: "421 4.3.2 going down!"}) == Deferred("421 4.3.2 going down", "connection")


async def test_greeting_that_refuses_defers() -> None:
    assert await receipt_from(greeting="554 no service!") == Deferred("554 no service", "connection")


async def test_refused_recipient_with_accepted_data_gets_no_dot() -> None:
    after: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await say(writer, "220 hello")
        await reader.readline()
        await say(writer, "250-server\r\n250 PIPELINING")
        for reply in ("250 ok", "550 5.1.1 nobody", "354 go"):
            await reader.readline()
            await say(writer, reply)
        after.append(await reader.read())

    async with scripted_server(script) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        assert await deliver(to) == Rejected("550 5.1.1 nobody", True)
    assert not any(after)


# Rude servers: what can and what cannot have been accepted.


@pytest.mark.parametrize("extensions", ["PIPELINING", "HELP"])
@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data"])
async def test_connection_lost_before_the_dot_is_deferred(stage: str, extensions: str) -> None:
    assert await receipt_from(extensions=extensions, **{stage: ""}) == Deferred(
        "the server closed the connection", "connection"
    )


async def test_connection_lost_after_the_dot_is_unknown() -> None:
    assert await receipt_from(dot="") == Unknown("connection_lost")


async def test_answer_that_never_comes_after_the_dot_is_unknown() -> None:
    assert await receipt_from(timing=replace(UNHURRIED, answer=0.1), dot="…") == Unknown("no_answer")


@pytest.mark.parametrize("nonsense", ["hello there", "250", "99 luftballons", "200-never", "354 again?"])
async def test_nonsense_after_the_dot_is_unknown_or_taken_at_its_word(nonsense: str) -> None:
    receipt = await receipt_from(dot=nonsense)
    assert receipt == Accepted("250") if nonsense == "250" else isinstance(receipt, Unknown)


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data"])
@pytest.mark.parametrize("nonsense", ["hello there", "x" * 100_000, "354 wait, what?"])
async def test_nonsense_before_the_dot_is_deferred(stage: str, nonsense: str) -> None:
    if stage == "data" and nonsense.startswith("354"):
        nonsense = "250 not what was asked"
    receipt = await receipt_from(**{stage: nonsense})
    assert isinstance(receipt, Deferred)


@pytest.mark.parametrize("stage", ["greeting", "mail", "rcpt", "data"])
async def test_silence_before_data_is_abandoned(stage: str) -> None:
    receipt = await receipt_from(within=0.2, **{stage: "…"})
    assert isinstance(receipt, Deferred)
    assert receipt.reason == "abandoned"


async def test_hand_over_that_comes_too_late_sends_nothing() -> None:
    async with keeping_server(kept := Keeping()) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        assert isinstance(await deliver(to), Accepted)
        assert await deliver(to, within=-1.0) == Deferred("", "abandoned")
    assert len(kept.envelopes) == 1


async def test_server_that_hangs_up_in_the_middle_of_the_mail_has_accepted_nothing() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await say(writer, "220 hello")
        await reader.readline()
        await say(writer, "250-server\r\n250 PIPELINING")
        for reply in ("250 ok", "250 ok", "354 go"):
            await reader.readline()
            await say(writer, reply)
        await reader.read(1000)
        await say(writer, "552 5.3.4 too much!")

    async with scripted_server(script) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        receipt = await deliver(to, mail(body=b"long\r\n" * 2_000_000))
    assert receipt in (Rejected("552 5.3.4 too much", False), Deferred("", "connection"))


async def test_nobody_listens() -> None:
    async with scripted_server(replying()) as port:
        pass
    async with transport(f"smtp://127.0.0.1:{port}") as to:
        assert await deliver(to) == Deferred("cannot connect: Connection refused", "connection")


async def test_process_that_dies_after_the_dot_leaves_a_whole_mail_with_the_server(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from test_smtp import deliver, transport\n"
        "async def main():\n"
        "    async with transport(sys.argv[1]) as to:\n"
        "        await deliver(to)\n"
        "asyncio.run(main())\n"
    )
    proof = tmp_path / "proof"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "RAPPORT_FAULT": "mailer.data_sent",
        "RAPPORT_FAULT_PROOF": str(proof),
    }
    async with keeping_server(kept := Keeping()) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, f"smtp://127.0.0.1:{port}", env=environment
        )
        assert await process.wait() == -signal.SIGKILL
        async with asyncio.timeout(PATIENCE):
            while not kept.envelopes:
                await asyncio.sleep(0.01)
    assert proof.read_text() == "mailer.data_sent\n"
    assert kept.envelopes[0].content == mail().data


async def test_server_that_hung_up_on_an_idle_connection_costs_no_attempt() -> None:
    hung_up = asyncio.Event()

    async def one_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await takes_a_mail(reader, writer)
        await reader.readline()
        hung_up.set()
        await say(writer, "421 4.4.2 you were idle!")

    async with scripted_server(one_mail, replying()) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        assert isinstance(await deliver(to), Accepted)
        assert isinstance(await deliver(to), Accepted)
    assert hung_up.is_set()


async def test_connection_that_was_idle_for_long_is_asked_first() -> None:
    asked = asyncio.Event()

    async def dies_at_noop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await takes_a_mail(reader, writer)
        assert await reader.readline() == b"NOOP\r\n"
        asked.set()
        await say(writer, "")

    timing = Timing(verify_after=-1.0)
    async with scripted_server(dies_at_noop, replying()) as port:
        async with transport(f"smtp://127.0.0.1:{port}", timing=timing) as to:
            assert isinstance(await deliver(to), Accepted)
            assert isinstance(await deliver(to), Accepted)
    assert asked.is_set()


async def test_idle_connection_is_left_in_time() -> None:
    left = asyncio.Event()

    async def watches(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await takes_a_mail(reader, writer)
        assert await reader.readline() == b"QUIT\r\n"
        left.set()

    async with scripted_server(watches) as port, transport(f"smtp://127.0.0.1:{port}", timing=Timing(idle=0.05)) as to:
        assert isinstance(await deliver(to), Accepted)
        async with asyncio.timeout(PATIENCE):
            await left.wait()


async def test_words_before_the_encryption_are_not_believed(tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await say(writer, "220 hello")
        await reader.readline()
        await say(writer, "250-server\r\n250 STARTTLS")
        await reader.readline()
        await say(writer, "220 go\r\n250-injected\r\n250 AUTH PLAIN")
        await reader.read()

    async with scripted_server(script) as port, transport(f"smtp://127.0.0.1:{port}") as to:
        assert await deliver(to) == Deferred("the server sent more than its answer to STARTTLS", "tls")


async def test_required_encryption_is_not_done_without() -> None:
    for url in ("smtp://127.0.0.1:{}?tls=required", "smtp://user:secret@127.0.0.1:{}"):
        async with scripted_server(replying(extensions="AUTH PLAIN")) as port, transport(url.format(port)) as to:
            assert await deliver(to) == Deferred(
                "the server does not offer STARTTLS. Say tls=none if that is meant", "tls"
            )


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("smtp://mail.example", Relay("mail.example", 25, "starttls")),
        ("smtp://mail.example:2525?tls=none", Relay("mail.example", 2525, "none")),
        ("smtp://u:p%3A@mail.example", Relay("mail.example", 587, "required", "u", "p:")),
        ("smtp://u:p@mail.example?tls=none", Relay("mail.example", 587, "none", "u", "p")),
        ("smtps://u:p@mail.example", Relay("mail.example", 465, "implicit", "u", "p")),
    ],
)
def test_relay_is_named_by_a_url(url: str, relay: Relay) -> None:
    assert Relay.of(url) == relay


@pytest.mark.parametrize("url", ["http://mail.example", "smtp://", "smtp://u:secret@h?tls=maybe", "smtp://h?tsl=none"])
def test_wrong_relay_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(RapportError) as refused:
        Relay.of(url)
    assert "secret" not in str(refused.value)
