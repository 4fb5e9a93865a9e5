"""What many requests bring goes to the log together, in order, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from fakes.memory_log import MemoryLog
from patience import PATIENCE

from services.ingest.batching import APPEND_BYTES, MANY_REQUESTS, OpenBatches, pause_after
from shared.errors import Unavailable
from shared.log.port import Entry, RecordTooLarge


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(partitions=4, largest_record=2 * APPEND_BYTES)


@pytest.fixture
async def batches(log: MemoryLog) -> AsyncIterator[OpenBatches]:
    batches = OpenBatches(log, "events", flush_seconds=0.001, answer_seconds=30, bytes_in_flight=8 * APPEND_BYTES)
    yield batches
    log.resume()
    await batches.close()
    assert batches.in_flight == 0


def entry(key: str, size: int = 1) -> Entry:
    return Entry(key, key.encode().ljust(size, b"."))


def taken(future: asyncio.Future[None] | None) -> asyncio.Future[None]:
    assert future is not None
    return future


def keys(log: MemoryLog, partition: int = 0) -> list[str]:
    return [record.key for record in log.records("events", partition)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def test_requests_of_the_same_moment_share_an_append(log: MemoryLog, batches: OpenBatches) -> None:
    requests = [taken(batches.append({0: [entry(f"r{n}")], n % 2 + 1: [entry(f"s{n}")]})) for n in range(10)]
    await asyncio.gather(*requests)
    assert sorted(partition for _, partition, _ in log.appends) == [0, 1, 2]
    assert keys(log) == [f"r{n}" for n in range(10)]


async def test_what_comes_after_a_pause_waits_for_nobody_and_what_follows_many_for_others(log: MemoryLog) -> None:
    batches = OpenBatches(log, "events", flush_seconds=300, answer_seconds=600, bytes_in_flight=8 * APPEND_BYTES)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(taken(batches.append({0: [entry(f"m{n}")]})) for n in range(MANY_REQUESTS)))
    following = []
    for n in range(3):
        following.append(taken(batches.append({0: [entry(f"r{n}")]})))
        await asyncio.sleep(0)
    await batches.close()
    await asyncio.gather(*following)
    assert [len(entries) for _, _, entries in log.appends] == [MANY_REQUESTS, 3]


def test_few_requests_are_waited_for_less_than_many() -> None:
    assert pause_after(1, 0.016) == pytest.approx(0.001)
    assert pause_after(MANY_REQUESTS, 0.016) == pause_after(500, 0.016) == 0.016


async def test_an_answer_waits_for_every_partition_of_its_request(log: MemoryLog, batches: OpenBatches) -> None:
    log.hold()
    done = taken(batches.append({0: [entry("a")], 1: [entry("b")]}))
    await until(lambda: log.waiting == 2)
    assert not done.done()
    log.resume()
    await done
    assert keys(log, 0) + keys(log, 1) == ["a", "b"]


async def test_what_comes_while_the_log_is_busy_follows_in_one_append(log: MemoryLog, batches: OpenBatches) -> None:
    log.hold()
    first = taken(batches.append({0: [entry("first")]}))
    await until(lambda: log.waiting)
    rest = [taken(batches.append({0: [entry(f"r{n}")]})) for n in range(5)]
    log.resume()
    await asyncio.gather(first, *rest)
    assert [len(entries) for _, _, entries in log.appends] == [1, 5]
    assert keys(log) == ["first", *(f"r{n}" for n in range(5))]


async def test_a_request_is_never_torn_over_two_appends(log: MemoryLog, batches: OpenBatches) -> None:
    log.hold()
    half = APPEND_BYTES // 2 + 1
    requests = [taken(batches.append({0: [entry(f"{n}a", half), entry(f"{n}b", half)]})) for n in range(3)]
    log.resume()
    await asyncio.gather(*requests)
    assert [[e.key for e in entries] for _, _, entries in log.appends] == [["0a", "0b"], ["1a", "1b"], ["2a", "2b"]]


async def test_more_than_the_bytes_in_flight_is_not_taken(log: MemoryLog, batches: OpenBatches) -> None:
    log.hold()
    held = [taken(batches.append({0: [entry("k", APPEND_BYTES)]})) for _ in range(8)]
    assert batches.append({1: [entry("k")]}) is None
    assert not batches.reserve(1)
    log.resume()
    await asyncio.gather(*held)
    await taken(batches.append({1: [entry("k")]}))


async def test_a_log_that_is_away_fails_requests_and_then_serves_again(log: MemoryLog, batches: OpenBatches) -> None:
    log.away = "no leader"
    with pytest.raises(Unavailable, match="no leader"):
        await taken(batches.append({0: [entry("a")], 1: [entry("b")]}))
    log.away = None
    await taken(batches.append({0: [entry("a")]}))
    assert keys(log) == ["a"]


async def test_a_log_that_is_silent_is_waited_for_only_so_long(log: MemoryLog) -> None:
    batches = OpenBatches(log, "events", flush_seconds=0, answer_seconds=0.02, bytes_in_flight=8 * APPEND_BYTES)
    log.hold()
    sent = taken(batches.append({0: [entry("sent")]}))
    await until(lambda: log.waiting)
    behind = taken(batches.append({0: [entry("behind")]}))
    for request in (sent, behind):
        with pytest.raises(Unavailable, match="no confirmation within"):
            await request
    # What was not handed over is forgotten, since it will be sent again; what was, may still arrive.
    log.resume()
    await taken(batches.append({0: [entry("again")]}))
    assert keys(log) == ["sent", "again"]
    await batches.close()
    assert batches.in_flight == 0


async def test_each_request_is_told_when_its_own_time_is_over(log: MemoryLog) -> None:
    batches = OpenBatches(log, "events", flush_seconds=0, answer_seconds=0.02, bytes_in_flight=8 * APPEND_BYTES)
    log.hold()
    for partition in (0, 1, 0):
        with pytest.raises(Unavailable, match="no confirmation within"):
            await taken(batches.append({partition: [entry(f"in {partition}")]}))
    log.resume()
    await batches.close()
    assert keys(log, 1) == ["in 1"]
    assert batches.in_flight == 0


async def test_a_record_that_the_log_refuses_fails_only_its_own_request(log: MemoryLog, batches: OpenBatches) -> None:
    log.hold()
    first = taken(batches.append({1: [entry("x")]}))
    before, large, after = (
        taken(batches.append({0: entries}))
        for entries in ([entry("a")], [entry("large", 3 * APPEND_BYTES)], [entry("b"), entry("c")])
    )
    log.resume()
    with pytest.raises(RecordTooLarge):
        await large
    await asyncio.gather(first, before, after)
    assert keys(log) == ["a", "b", "c"]


async def test_a_defect_in_the_log_leaves_nobody_waiting(log: MemoryLog, batches: OpenBatches) -> None:
    class Broken(MemoryLog):
        async def append(self, stream: str, partition: int, entries: object) -> None:
            raise ZeroDivisionError

    broken = OpenBatches(Broken(), "events", flush_seconds=0, answer_seconds=30, bytes_in_flight=APPEND_BYTES)
    with pytest.raises(Unavailable, match="ZeroDivisionError"):
        await taken(broken.append({0: [entry("a")]}))
    await broken.close()


async def test_closing_writes_what_is_open_and_takes_no_more(log: MemoryLog) -> None:
    batches = OpenBatches(log, "events", flush_seconds=30, answer_seconds=30, bytes_in_flight=APPEND_BYTES)
    done = taken(batches.append({0: [entry("a")]}))
    await batches.close()
    assert done.done()
    await done
    assert keys(log) == ["a"]
    assert batches.append({0: [entry("b")]}) is None


async def test_closing_does_not_wait_for_ever_for_a_silent_log(log: MemoryLog) -> None:
    batches = OpenBatches(log, "events", flush_seconds=0, answer_seconds=0.01, bytes_in_flight=APPEND_BYTES)
    log.hold()
    done = taken(batches.append({0: [entry("a")]}))
    await batches.close()
    with pytest.raises(Unavailable):
        await done
    assert batches.in_flight == 0


async def test_closing_answers_those_behind_a_silent_append_too(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = OpenBatches(log, "events", flush_seconds=0, answer_seconds=0.02, bytes_in_flight=8 * APPEND_BYTES)
    log.hold()
    sent = taken(batches.append({0: [entry("sent")]}))
    await until(lambda: log.waiting)
    behind = [taken(batches.append({0: [entry("behind", APPEND_BYTES)]})) for _ in range(2)]
    # uvloop's timers, of whole milliseconds, may come too early: here before the watch over late answers.
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda delay, *call, **more: call_later(delay / 2, *call, **more))
    await batches.close()
    assert batches.in_flight == 0
    for request in (sent, *behind):
        assert request.done()
        with pytest.raises(Unavailable, match="no confirmation within"):
            await request


async def test_a_request_without_entries_waits_for_nothing(batches: OpenBatches) -> None:
    await taken(batches.append({}))


async def test_a_client_that_leaves_does_not_disturb_the_others(log: MemoryLog, batches: OpenBatches) -> None:
    log.hold()
    gone, stays = taken(batches.append({0: [entry("a")]})), taken(batches.append({0: [entry("b")]}))
    gone.cancel()
    log.resume()
    await stays
    assert keys(log) == ["a", "b"]
