"""`rapport up` is killed, stopped, and loses its PostgreSQL: nothing accepted is lost, and no mail comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

import httpx
import psutil
import pytest
import pytest_asyncio
from house import HOUR_A_SECOND, House, a_house, first_order, rapport
from patience import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing() -> AsyncIterator[House]:
    """One installation that lives through all that this file does to it. An hour passes in three seconds: what a shop
    posts again after a slow restart is known again for a day."""
    async with a_house(speed=HOUR_A_SECOND / 3) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(standing: House) -> AsyncIterator[House]:
    """The same, running."""
    if not standing.process.alive:
        await standing.start()
    yield standing


async def thanked_once(house: House, *users: str) -> None:
    """Each of these customers has their order in history once, and one mail for it."""
    for user in users:
        await house.mailed(user)
        assert house.mails_of(user) == ["thank-you-first"], user
        assert len(await house.timeline(user, "Order Completed")) == 1, user


async def outcomes(house: House, user: str) -> list[str]:
    """How the messages to this customer have ended, by the names of the events."""
    return [row["name"] for row in await house.timeline(user) if row.get("name", "").startswith("Email ")]


async def all_outcomes(house: House, users: list[str]) -> dict[str, list[str]]:
    """The same for each of these customers, once there is one for every one of them."""
    found: dict[str, list[str]] = {}

    async def complete() -> bool:
        for user in users:
            if user not in found and (ended := await outcomes(house, user)):
                found[user] = ended
        return len(found) == len(users)

    await until(complete, what="all outcomes")
    return found


async def test_killed_under_way_everything_accepted_is_there_once(house: House) -> None:
    """At no named point: while posts come in, when the first have begun the journey, and while mails go out."""
    users = [f"crowd-{number}" for number in range(30)]
    waves = users[:10], users[10:20], users[20:]
    before = len(house.mails.mails)
    answered: list[str] = []

    async def post(wave: list[str]) -> None:
        for user in wave:
            answered.extend(await house.post(*first_order(user)))

    async def half_is_answered() -> bool:
        return len(answered) >= 10

    async def one_has_begun() -> bool:
        return bool(await house.enrollments(waves[1][0], "thank-you"))

    async def one_is_mailed() -> bool:
        return any(house.mails_of(user) for user in waves[2])

    for wave, moment in zip(waves, (half_is_answered, one_has_begun, one_is_mailed), strict=True):
        posting = asyncio.create_task(post(wave))
        await until(moment, what=moment.__name__)
        await house.process.kill()
        await house.start()
        await posting
    ended = await all_outcomes(house, users)
    # Whom a mail was under way to when the process died may have it or not, and that is said.
    assert all(names in (["Email Sent"], ["Email Unknown"]) for names in ended.values()), ended
    for user in users:
        assert len(await house.timeline(user, "Order Completed")) == 1, user
        mails = ["thank-you-first"]
        assert house.mails_of(user) in ([mails] if ended[user] == ["Email Sent"] else [[], mails]), user
    assert len(house.mails.mails) - before <= len(users)


async def test_an_orderly_stop_waits_for_the_mail_servers_answers_and_leaves_no_mail_unknown(house: House) -> None:
    users = [f"patient-{number}" for number in range(12)]
    house.mails.hold_answers()
    await house.post(*(event for user in users for event in first_order(user)))

    async def in_hand() -> bool:
        return house.mails.unanswered > 0

    await until(in_hand, what="a hand-over")
    stopping = asyncio.create_task(house.process.stop())

    async def refuses() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await house.http.get("/healthz")).status_code != 200
        return True

    await until(refuses, what="the end of service")
    assert house.process.alive
    house.mails.answer()
    assert await stopping == 0
    await house.start()
    assert await all_outcomes(house, users) == {user: ["Email Sent"] for user in users}
    await thanked_once(house, *users)


async def test_postgresql_that_dies_is_started_again_under_the_running_process(house: House) -> None:
    """Once by an immediate stop, and once by SIGKILL, which leaves its sessions behind for a moment."""
    process, servers = house.process.pid, [house.postgres]
    users = [f"kept-{number}" for number in range(30)]
    await house.post(*(event for user in users[:10] for event in first_order(user)))
    await house.mailed(users[0])

    async def another() -> bool:
        return house.postgres not in (None, *servers)

    for how, more in ((signal.SIGQUIT, users[10:20]), (signal.SIGKILL, users[20:])):
        assert servers[-1] is not None
        servers[-1].send_signal(how)
        await house.post(*(event for user in more for event in first_order(user)))
        await until(another, what="another server")
        servers.append(house.postgres)
        await house.ready()
    await thanked_once(house, *users)
    assert await all_outcomes(house, users) == {user: ["Email Sent"] for user in users}
    assert house.process.alive
    assert house.process.pid == process


async def test_one_process_over_one_data_folder(house: House) -> None:
    second = await rapport("up", "--data", house.data, "--port", "0")
    folder = house.data / "postgres"
    remedy = "Stop that one, or choose another --data."
    assert second == (1, f"{folder} is in use by another Rapport. {remedy}\n")
    taken = await rapport("up", "--data", house.folder / "other", "--port", house.port)
    assert taken.code == 1
    assert f"cannot listen on 127.0.0.1:{house.port}" in taken.output
    await house.ready()


async def test_whoever_reads_the_journal_learns_no_read_key(house: House) -> None:
    key = house.data / "read-key"

    async def told() -> bool:
        return f"read key in {key}" in house.process.output

    await until(told, what="where the key lies")
    assert key.read_text().strip() not in house.process.output


async def test_an_installation_is_soon_ready_again_and_stays_small(
    house: House, measured: Callable[[str], None]
) -> None:
    assert await house.process.stop() == 0
    seconds = await house.start()
    process = psutil.Process(house.process.pid)
    resident = process.memory_info().rss / 1e6
    measured(f"rapport up on an existing directory: ready after {seconds:.1f} s, {resident:.0f} MB resident")
    assert resident < 500
    children = [child for child in process.children(recursive=True) if child.name() != "postgres"]
    assert children == []
