"""The embedded PostgreSQL: it comes back where it was when it dies, and goes when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from shared.database.embedded import EmbeddedPostgres, buffers, memory
from shared.errors import RapportError


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="rapport-test-") as folder:
        Path(folder).chmod(0o755)
        async with EmbeddedPostgres(Path(folder) / "postgres") as server:
            yield server


async def asked(url: str, question: str) -> object:
    """The answer, once the server gives one."""
    while True:
        try:
            connection = await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.02)
            continue
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGKILL])
async def test_a_server_that_dies_is_back_at_its_port_with_what_was_committed(
    server: EmbeddedPostgres, how: signal.Signals
) -> None:
    url, pid = server.url, server.pid
    assert pid is not None
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    os.kill(pid, how)
    assert await asked(url, "SELECT n FROM kept") == 42
    assert server.pid != pid
    connection.terminate()


async def test_a_server_that_is_stopped_while_it_comes_back_stays_stopped(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.pid is not None and os.path.exists(f"/proc/{server.pid}/exe"):
        await asyncio.sleep(0.01)
    await server.stop()
    assert server.pid is None
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await asyncpg.connect(host="127.0.0.1", port=server.port, user="rapport", database="rapport")


async def test_a_second_server_over_the_same_folder_is_refused(server: EmbeddedPostgres) -> None:
    with pytest.raises(RapportError, match="in use by another Rapport"):
        await EmbeddedPostgres(server.folder).start()
    assert await asked(server.url, "SELECT 1") == 1


async def test_the_server_is_reached_by_a_socket_that_others_may_not_open(server: EmbeddedPostgres) -> None:
    assert "host=%2F" in server.near_url
    assert await asked(server.near_url, "SELECT inet_client_addr() IS NULL") is True
    [found] = [path for path in server.folder.iterdir() if path.is_socket()]
    assert not found.stat().st_mode & 0o077


async def test_a_folder_whose_path_is_too_long_for_a_socket_is_served_by_tcp() -> None:
    with tempfile.TemporaryDirectory(prefix="rapport-test-") as folder:
        Path(folder).chmod(0o755)
        deep = Path(folder) / ("d" * 100)
        deep.mkdir(mode=0o755)
        async with EmbeddedPostgres(deep / "postgres") as server:
            assert server.near_url == server.url
            assert await asked(server.near_url, "SELECT inet_client_addr() IS NOT NULL") is True


def test_a_server_takes_a_part_of_the_memory_that_there_is() -> None:
    sizes = [1 << 30, 2 << 30, 4 << 30, 64 << 30]
    assert [buffers(size) >> 20 for size in sizes] == [128, 256, 512, 4096]
    assert memory() > 0


async def test_a_log_that_has_grown_long_is_put_aside_at_the_next_start() -> None:
    with tempfile.TemporaryDirectory(prefix="rapport-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        log, before = folder / "postgres.log", folder / "postgres.log.1"
        log.write_bytes(b"x" * (10 << 20))
        async with EmbeddedPostgres(folder):
            assert not before.exists()
        grown = log.stat().st_size
        async with EmbeddedPostgres(folder):
            assert before.stat().st_size == grown > 10 << 20
            assert log.stat().st_size < 1 << 20
