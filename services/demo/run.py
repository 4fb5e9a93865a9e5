"""The demonstration from start to report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services import embedded
from services.demo import ledger
from services.demo.shop import Shop
from services.journeys import store as journeys_store
from services.mailer import page_store as mailer_pages
from services.segmenter import store as segmenter_store
from services.serving import HttpServer, stop_requested
from shared.errors import RapportError
from shared.language import SHIPPED
from shared.processing import dead_letters

SPEED = 3600.0
"""An hour passes in a second."""

_SECONDS = 60.0
_SETTLE_SECONDS = 20.0
_SLACK = timedelta(hours=6)
"""What was due this long before the end (some seconds of the machine's time) must have happened."""

_STAGES = ("attract", "convert", "retain", "delight")
"""The shipped playbook's, as a relationship grows."""

_console = Console()


@dataclass(frozen=True)
class Picture:
    """How things stand."""

    stages: dict[str, int]
    enrollments: dict[str, int]
    messages: dict[str, dict[str, int]]
    processed: int
    deduplicated: int
    dead: int


async def run_demo(*, seconds: float | None, headless: bool, report: Path | None, port: int, data: Path | None) -> None:
    """Runs the shop for `seconds` (a minute unless given). Where they were not given and standard output is a terminal,
    stays up until Ctrl-C, so that the mails can be read."""
    stays = seconds is None and sys.stdout.isatty()
    live = not headless and sys.stdout.isatty()
    async with contextlib.AsyncExitStack() as stack:
        if data is None:
            data = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="rapport-demo-", ignore_cleanup_errors=True))
            )
            # The account that PostgreSQL runs as under root has to enter it.
            os.chmod(data, 0o755)
        options = embedded.Options(
            data=data, playbook=SHIPPED, port=await _free(port), write_key="demo-write-key", clock_speed=SPEED
        )
        if live:
            structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
        running = await stack.enter_async_context(embedded.running(options))
        inbox = f"{running.address}/mailer/inbox"
        _say(f"Rapport is up. An hour passes in a second; the mails are at {inbox}", headless)
        shop = Shop(running.address, running.write_key, running.clock.now, seconds or _SECONDS)
        shop.start()
        picture = await _watch(running, shop, live, inbox)
        picture, findings = await _settle(running, shop)
        summary = _summary(shop, picture, findings)
        if report is not None:
            await asyncio.to_thread(report.write_text, json.dumps(summary, indent=2) + "\n")
        _tell(summary, findings, headless)
        if stays:
            _say(f"The mails are at {inbox}. Ctrl-C ends the demonstration.", headless)
            await stop_requested(running.server)
    if findings.duplicates or findings.lost:
        raise RapportError(f"{len(findings.duplicates)} duplicates, {len(findings.lost)} lost. This is a defect.")


async def _free(port: int) -> int:
    """`port`, or any other where somebody uses that one."""
    try:
        async with HttpServer("127.0.0.1", port):
            return port
    except RapportError:
        return 0


async def _watch(running: embedded.Embedded, shop: Shop, live: bool, inbox: str) -> Picture:
    """The live picture, until the shop has closed."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(Live(console=_console, refresh_per_second=4)) if live else None
        while shop.is_alive():
            picture = await _look(running)
            if screen is not None:
                passed = timedelta(seconds=int((time.monotonic() - started) * SPEED))
                screen.update(_drawn(picture, shop, passed, inbox))
            await asyncio.sleep(0.5)
    return await _look(running)


async def _look(running: embedded.Embedded) -> Picture:
    async with running.database.connect() as connection:
        stages = await segmenter_store.customers_by_stage(connection)
        tallies = await journeys_store.counts(connection)
        messages = await mailer_pages.counts(connection)
        counted = await segmenter_store.events_counted(connection)
        dead = sum((await dead_letters.counts(connection)).values())
    enrollments: dict[str, int] = {}
    for tally, count in tallies:
        enrollments[tally.journey] = enrollments.get(tally.journey, 0) + count
    return Picture(
        {stage: stages.get(stage, 0) for stage in _STAGES},
        enrollments,
        messages,
        counted.processed,
        counted.deduplicated,
        dead,
    )


async def _settle(running: embedded.Embedded, shop: Shop) -> tuple[Picture, ledger.Findings]:
    """Wait until all that was answered 200 has been taken and no mail is missing, then say what was found."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    until = running.clock.now()
    while True:
        # Of one moment, so that a mail that goes out meanwhile is not missing from both lists.
        async with (
            running.database.connect() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            missing = await segmenter_store.not_in_history(connection, shop.accepted)
            mails = [ledger.arrived(data) async for data in _inbox(connection)]
            excused = [
                ledger.Excused(listed.customer, listed.journey)
                for listed in await mailer_pages.listing(connection, limit=1_000_000)
                if listed.status != "sent"
            ]
        picture = await _look(running)
        findings = ledger.compare(shop.shoppers, mails, excused, until - _SLACK)
        unaccounted = max(0, len(missing) - picture.deduplicated - picture.dead)
        findings.lost += [f"event {id} was answered 200 and is nowhere" for id in missing[:unaccounted]]
        if not findings.lost or time.monotonic() > deadline:
            return picture, findings
        await asyncio.sleep(0.5)


async def _inbox(connection: Any) -> AsyncIterator[bytes]:
    before = None
    while page := await mailer_pages.inbox(connection, limit=500, before=before):
        for kept in page:
            mail = await mailer_pages.inbox_mail(connection, kept.number)
            if mail is not None:
                yield mail.data
        before = page[-1].number


def _summary(shop: Shop, picture: Picture, findings: ledger.Findings) -> dict[str, Any]:
    ends = ("sent", "skipped", "failed", "unknown")
    return {
        "events": {
            "accepted": len(shop.accepted),
            "processed": picture.processed,
            "deduplicated": picture.deduplicated,
            "dead": picture.dead,
        },
        "stages": picture.stages,
        "enrollments": picture.enrollments,
        "messages": {
            journey: {end: statuses.get(end, 0) for end in ends} for journey, statuses in picture.messages.items()
        },
        "duplicates": len(findings.duplicates),
        "lost": len(findings.lost),
    }


def _drawn(picture: Picture, shop: Shop, passed: timedelta, inbox: str) -> Group:
    stages = Table("customers", *picture.stages, box=None)
    stages.add_row(str(sum(picture.stages.values())), *(str(count) for count in picture.stages.values()))
    messages = Table("journey", "enrolled", "sent", "waiting", "skipped", box=None)
    for journey in sorted({*picture.enrollments, *picture.messages}):
        statuses = picture.messages.get(journey, {})
        waiting = sum(statuses.get(status, 0) for status in ("requested", "held", "sending"))
        messages.add_row(
            journey,
            str(picture.enrollments.get(journey, 0)),
            str(statuses.get("sent", 0)),
            str(waiting),
            str(statuses.get("skipped", 0)),
        )
    return Group(
        Text(f"{passed} in the shop, {len(shop.shoppers)} customers, {picture.processed} events"),
        Text(),
        stages,
        Text(),
        messages,
        Text(),
        Text(f"read the mails: {inbox}", style="dim"),
    )


def _tell(summary: dict[str, Any], findings: ledger.Findings, headless: bool) -> None:
    events = summary["events"]
    _say(
        f"{events['accepted']} events accepted, {events['processed']} processed with Rapport's own, "
        f"{events['deduplicated']} dropped as duplicates, {events['dead']} dead letters",
        headless,
    )
    _say("customers: " + ", ".join(f"{count} {stage}" for stage, count in summary["stages"].items()), headless)
    for journey, ends in summary["messages"].items():
        told = ", ".join(f"{count} {end}" for end, count in ends.items())
        _say(f"{journey}: {summary['enrollments'].get(journey, 0)} enrolled; mails {told}", headless)
    _say(
        f"compared with the inboxes from outside: {summary['duplicates']} duplicates, {summary['lost']} lost", headless
    )
    for line in (*findings.duplicates[:10], *findings.lost[:10]):
        _say(f"  {line}", headless)


def _say(text: str, headless: bool) -> None:
    if not headless:
        _console.print(text, highlight=False, markup=False, soft_wrap=True)
