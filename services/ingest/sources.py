"""Who may post: the sources, found by their write keys. From a file that is watched, or given by the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from services.ingest.keyfile import KeyFileInvalid, read_sources
from services.ingest.rates import Bucket, Rate
from shared.errors import RapportError
from shared.security import hash_key
from shared.telemetry import INGEST_SOURCES_INVALID

# The few keys that are in use are hashed once. Whether one was seen before is no more than its answer tells.
_digest = lru_cache(maxsize=64)(hash_key)
_logger = structlog.get_logger("rapport.ingest")


class Writer(NamedTuple):
    """Who posts with one write key: its source, and the bucket that says how fast; None: as fast as it likes."""

    source: str
    bucket: Bucket | None = None


class Sources(Protocol):
    """Finds who posts with a write key.

    The look-up is by the key's SHA-256, so how long it takes says nothing about a key that would have fitted.
    """

    def find(self, key: str) -> Writer | None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class GivenSources:
    """Sources whose keys are known in the clear when the process starts, as with `rapport up --write-key`."""

    def __init__(self, keys: Mapping[str, Iterable[str]], rate: Rate | None = None) -> None:
        """`keys`: the write keys of each source, by its name. `rate`: what each of them may post."""
        self._writers = {
            hash_key(key): Writer(source, Bucket(rate) if rate else None)
            for source, some in keys.items()
            for key in some
        }

    def find(self, key: str) -> Writer | None:
        return self._writers.get(_digest(key))

    async def start(self) -> None:
        """Nothing to wait for."""

    async def stop(self) -> None:
        """Nothing to end."""


class WatchedSources:
    """Sources from a file that may change while the process runs: a Kubernetes Secret, say.

    A file that cannot be used never replaces one that could: the log says what is wrong with it, once.
    """

    def __init__(self, path: Path, rate: Rate | None = None, poll_seconds: float = 1.0) -> None:
        """`rate`: what each key may post whose source says nothing of it in the file."""
        self._path, self._rate, self._poll_seconds = path, rate, poll_seconds
        self._writers: Mapping[str, Writer] = {}
        self._seen: object = None
        self._watch: asyncio.Task[None] | None = None

    def find(self, key: str) -> Writer | None:
        return self._writers.get(_digest(key))

    async def start(self) -> None:
        """Read the file, and watch it. Raises RapportError where it cannot be used: there is no good one yet."""
        self._seen, content = await asyncio.to_thread(self._read)
        self._writers = self._parse(content)
        INGEST_SOURCES_INVALID.set(0)
        self._watch = asyncio.create_task(self._keep_watch())

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def refresh(self) -> bool:
        """Read the file again if it is another one than before; True where its sources are now in force."""
        try:
            seen = await asyncio.to_thread(self._stamp)
            if seen == self._seen:
                return False
            self._seen, content = await asyncio.to_thread(self._read)
            writers = self._parse(content)
        except KeyFileInvalid as invalid:
            self._keep_the_good_one(str(invalid))
            return False
        except RapportError as missing:
            if self._seen is not None:
                self._keep_the_good_one(str(missing))
            self._seen = None
            return False
        self._writers = writers
        INGEST_SOURCES_INVALID.set(0)
        sources = {writer.source for writer in writers.values()}
        _logger.info("write keys reloaded", file=str(self._path), sources=len(sources), keys=len(writers))
        return True

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
            except Exception:
                # The watch must outlive whatever a file can hold.
                _logger.exception("write keys not reloaded; the former ones stay in force", file=str(self._path))

    def _keep_the_good_one(self, problem: str) -> None:
        INGEST_SOURCES_INVALID.set(1)
        remedy = "Mend the file, and it is taken; a process that starts meanwhile does not."
        _logger.error("write keys not reloaded; the former ones stay in force", problem=problem, remedy=remedy)

    def _stamp(self) -> object:
        """What changes when the file does: a Secret's update puts another inode under the same name."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise self._unreadable(error) from None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> tuple[object, bytes]:
        """The stamp first: what is written while we read, is seen as another change."""
        stamp = self._stamp()
        try:
            return stamp, self._path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from None

    def _parse(self, content: bytes) -> Mapping[str, Writer]:
        try:
            sources = read_sources(content.decode(), str(self._path))
        except UnicodeDecodeError:
            raise KeyFileInvalid(f"{self._path}: the file is not UTF-8. Save it as UTF-8.") from None
        return {
            digest: self._writer(digest, source.name, source.rate or self._rate) for digest, source in sources.items()
        }

    def _writer(self, digest: str, source: str, rate: Rate | None) -> Writer:
        """Who has used up a bucket does not get a full one by a change elsewhere in the file."""
        former = self._writers.get(digest)
        if former is not None and former.bucket is not None and former.bucket.rate == rate:
            return Writer(source, former.bucket)
        return Writer(source, Bucket(rate) if rate else None)

    def _unreadable(self, error: OSError) -> RapportError:
        return RapportError(f"{self._path}: {error.strerror}. Put the file of write keys there.")
