"""The machine that a simulated installation stands on: its time, its dice, its processes.

Nothing here waits: when nobody has anything to do, time goes on to when somebody has. The same seed gives the same run,
since time, random numbers and the order of everything come from here alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_ROUNDS = 100_000
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Stuck(AssertionError):
    """Nobody will ever do anything again, and somebody waits."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time passes only where everybody waits.

    There is no input or output to wait for, so waiting is passing time; and a round is no more than what is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self._rounds = 0
        """Since time last passed."""
        self._numbers = count()
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self.passed

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.passed + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._later, (when, next(self._numbers), handle))
        return handle

    def _run_once(self) -> None:
        ready, later = self._ready, self._later  # type: ignore[attr-defined]
        self._rounds += 1
        if not ready:
            while later and later[0][2].cancelled():
                heappop(later)
            if not later:
                raise Stuck("nothing is under way, and somebody waits.")
            if later[0][0] > self.passed:
                self.passed = later[0][0]
                self._rounds = 0
        if self._rounds > _MOST_ROUNDS:
            raise Stuck(f"time does not pass, since somebody never waits: {list(ready)[:3]}")
        while later and later[0][0] <= self.passed:
            ready.append(heappop(later)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _write_to_self(self) -> None:
        """There is no other thread that would have to wake this one."""


@contextmanager
def virtual(seed: int) -> Iterator[VirtualLoop]:
    """A loop for one history. Meanwhile the process's monotonic time and its random numbers are the machine's."""
    loop = VirtualLoop()
    dice = random.Random(f"machine {seed}")
    state, monotonic, counter, urandom = random.getstate(), time.monotonic, time.perf_counter, os.urandom
    random.seed(seed)
    time.monotonic, time.perf_counter, os.urandom = loop.time, loop.time, dice.randbytes  # type: ignore[assignment]
    random._urandom = dice.randbytes  # type: ignore[attr-defined]  # what `secrets` draws from
    try:
        yield loop
    finally:
        time.monotonic, time.perf_counter, os.urandom = monotonic, counter, urandom  # type: ignore[assignment]
        random._urandom = urandom  # type: ignore[attr-defined]
        random.setstate(state)
        loop.close()


class SimulatedClock:
    """The clock that the services are given: it goes with the machine, and leaps when the history says so."""

    speed = 1.0

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._leapt = timedelta(0)

    def now(self) -> datetime:
        return START + self._leapt + timedelta(microseconds=round(self._loop.time() * 1e6))

    def leap(self, by: timedelta) -> None:
        self._leapt += by


_current: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """One simulated process: all tasks that it ever began. It can be stopped and go on, and it can die.

    Whatever reaches beyond its memory goes through `step`, which is where it stops and dies: between two steps a
    process does nothing that anybody else could see.
    """

    def __init__(self, name: str, loop: VirtualLoop, on_step: Callable[[Process, str], None]) -> None:
        self.name = name
        self.alive = True
        self._loop = loop
        self._on_step = on_step
        self._going = asyncio.Event()
        self._going.set()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.at_death: list[Callable[[], None]] = []

    @property
    def stopped(self) -> bool:
        return not self._going.is_set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this process; those that it begins in turn are this process's, too."""
        return self.run(lambda: self._loop.create_task(work))

    def run(self, work: Callable[[], T]) -> T:
        token = _current.set(self)
        try:
            return work()
        finally:
            _current.reset(token)

    async def step(self, what: str, seconds: float) -> None:
        """Pass some time, if any, on the way to or from the world."""
        if not self.alive:
            raise asyncio.CancelledError
        self._on_step(self, what)
        if seconds:
            await asyncio.sleep(seconds)
        if self.stopped:
            await self._going.wait()
        if not self.alive:
            raise asyncio.CancelledError

    def stop(self) -> None:
        """As SIGSTOP."""
        self._going.clear()

    def go_on(self) -> None:
        """As SIGCONT."""
        self._going.set()

    async def die(self) -> None:
        """As SIGKILL: what it held in memory is gone, and what it had begun does not go on."""
        if not self.alive:
            return
        self.alive = False
        for farewell in self.at_death:
            farewell()
        for _ in range(100):
            left = [task for task in self.tasks if not task.done() and task is not asyncio.current_task()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        raise Stuck(f"{self.name} cannot be killed: {left}")


def register_tasks(loop: VirtualLoop) -> None:
    """From now on each task is known to the process that began it."""

    def make(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        process = _current.get()
        if process is not None and not process.alive:
            # Begun by what tidies up after the cancelled: the dead do not.
            work.close()
            never: asyncio.Task[Any] = asyncio.Task(_never(loop), loop=loop)
            never._log_destroy_pending = False  # type: ignore[attr-defined]
            return never
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
        if process is not None:
            process.tasks[task] = None
            task.add_done_callback(lambda done: process.tasks.pop(done, None))
        return task

    loop.set_task_factory(make)


async def _never(loop: asyncio.AbstractEventLoop) -> None:
    await loop.create_future()
