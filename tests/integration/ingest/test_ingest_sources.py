"""The file of write keys is watched while ingest runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from patience import PATIENCE
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.ingest.rates import Rate
from services.ingest.sources import WatchedSources
from shared.errors import RapportError
from shared.security import hash_key


def file_of(**keys: str) -> str:
    lines = [f"  - name: {name}\n    keys: [{hash_key(key)}]" for name, key in keys.items()]
    return "\n".join(["sources:", *lines])


def named(sources: WatchedSources, key: str) -> str | None:
    found = sources.find(key)
    return found and found.source


def invalid() -> float | None:
    return REGISTRY.get_sample_value("rapport_ingest_sources_invalid")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sources.yaml"
    path.write_text(file_of(shop="one"))
    return path


@pytest.fixture
async def sources(path: Path) -> AsyncIterator[WatchedSources]:
    sources = WatchedSources(path, poll_seconds=3600)
    await sources.start()
    yield sources
    await sources.stop()


async def test_a_new_key_comes_into_force(sources: WatchedSources, path: Path) -> None:
    assert (named(sources, "one"), named(sources, "two")) == ("shop", None)
    path.write_text(file_of(shop="one", app="two"))
    assert await sources.refresh()
    assert (named(sources, "one"), named(sources, "two")) == ("shop", "app")


async def test_a_file_that_stays_is_not_read_again(sources: WatchedSources) -> None:
    assert not await sources.refresh()


async def test_a_secret_that_kubernetes_swaps_comes_into_force(tmp_path: Path) -> None:
    for name, key in (("old", "one"), ("new", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sources.yaml").write_text(file_of(shop=key))
        os.utime(tmp_path / name / "sources.yaml", (0, 0))
    (tmp_path / "data").symlink_to("old")
    sources = WatchedSources(tmp_path / "data" / "sources.yaml", poll_seconds=3600)
    await sources.start()
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(tmp_path / "data")
    assert await sources.refresh()
    assert (named(sources, "one"), named(sources, "two")) == (None, "shop")
    await sources.stop()


@pytest.mark.parametrize("wrong", ["", "sources: [", "sources: [{name: shop, keys: [my-key]}]", b"\xff", None])
async def test_a_bad_file_never_replaces_a_good_one(
    sources: WatchedSources, path: Path, wrong: str | bytes | None
) -> None:
    if wrong is None:
        path.unlink()
    else:
        path.write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
    with capture_logs() as logged:
        assert not await sources.refresh()
        assert not await sources.refresh()
    assert named(sources, "one") == "shop"
    # Said once, with its place, and not with what may be a key.
    (line,) = logged
    assert line["problem"].startswith(str(path))
    assert "my-key" not in str(line)
    assert invalid() == 1
    path.write_text(file_of(shop="two"))
    assert await sources.refresh()
    assert named(sources, "two") == "shop"
    assert invalid() == 0


@pytest.mark.parametrize("wrong", [None, "sources: {}"])
async def test_without_a_good_file_it_does_not_start(tmp_path: Path, wrong: str | None) -> None:
    path = tmp_path / "sources.yaml"
    if wrong is not None:
        path.write_text(wrong)
    with pytest.raises(RapportError, match=r"sources\.yaml"):
        await WatchedSources(path).start()


async def test_the_watch_sees_a_change_by_itself(path: Path) -> None:
    sources = WatchedSources(path, poll_seconds=0.001)
    await sources.start()
    path.write_text(file_of(shop="two"))
    async with asyncio.timeout(PATIENCE):
        while sources.find("two") is None:
            await asyncio.sleep(0.001)
    await sources.stop()


async def test_a_rate_is_each_keys_own_and_outlives_a_change_elsewhere_in_the_file(path: Path) -> None:
    now = datetime(2025, 3, 1, tzinfo=UTC)

    def said(rate: int, *others: str) -> str:
        shop = f"  - {{name: shop, keys: [{hash_key('one')}, {hash_key('two')}], rate: {rate}, burst: 1}}"
        return "\n".join(["sources:", shop, *(f"  - {{name: x, keys: [{hash_key(other)}]}}" for other in others)])

    def take(key: str) -> float | None:
        found = sources.find(key)
        assert found
        return found.bucket.take(1, now) if found.bucket else None

    path.write_text(said(1))
    sources = WatchedSources(path, poll_seconds=3600)
    await sources.start()
    assert [take("one"), take("one"), take("two")] == [0, 1, 0]
    path.write_text(said(1, "three"))
    assert await sources.refresh()
    assert [take("one"), take("three")] == [1, None]
    path.write_text(said(20, "three"))
    assert await sources.refresh()
    assert [take("one"), take("one")] == [0, 0.05]
    await sources.stop()


async def test_a_source_without_a_rate_has_that_of_the_settings(path: Path) -> None:
    path.write_text(file_of(shop="one") + f"\n  - {{name: x, keys: [{hash_key('two')}], rate: 7}}")
    sources = WatchedSources(path, Rate(3, 4), poll_seconds=3600)
    await sources.start()
    found = [sources.find("one"), sources.find("two")]
    assert [writer and writer.bucket and writer.bucket.rate for writer in found] == [Rate(3, 4), Rate(7, 70)]
    await sources.stop()
