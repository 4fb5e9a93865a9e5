"""A simulation on all cores: each process lives through the history of its share of the customers.

They share nothing while they are at it: each reads all files and keeps what is its own. They wait for each other twice.
Before, each looks in a part of the files for customers with the same address, who are to go together; and when all have
come to the end of their events, time goes on for each until the last event of anybody. What they found is put together.
They are started anew and not forked, so that it is the same on every system.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from services.backtest.columns import Columns
from services.backtest.ordering import HELD
from services.backtest.parts import Part, together
from services.backtest.reading import History
from services.backtest.shares import EVERYBODY, Share, addresses, go_apart, moved
from services.backtest.simulation import Reached, found, simulate
from services.rehearsal.coupons import most_of
from shared.cores import cores
from shared.errors import RapportError
from shared.language import load
from shared.language.playbook import Playbook
from shared.memory import collect_seldom

_ENOUGH = 16 << 20
"""Bytes of history that are worth a process of their own: it takes a second to start."""
_PACKED = 8
"""Times that history is longer when it is unpacked."""

Files = Mapping[str, bytes]
Source = tuple[Path, Columns | None]


class Ended(NamedTuple):
    """A process has come to the end of its events: when the last of them was."""

    at: datetime | None


class Failed(NamedTuple):
    """A process cannot go on, and says why."""

    text: str


class Worker(NamedTuple):
    """A process, and the way to speak with it."""

    process: BaseProcess
    connection: Connection


def simulate_shared(
    playbooks: Sequence[Files], sources: Sequence[Source], jobs: int | None, progress: Callable[[int], None]
) -> Part:
    """What all customers come to under each of one or two playbooks; `jobs` processes at most, as many as there is work
    for if not given. `progress` is told how many bytes of the files have been read."""
    proven = [load(files) for files in playbooks]
    histories = _opened(sources, EVERYBODY)
    jobs = jobs or worthwhile(histories)
    if jobs > 1 and all(map(go_apart, proven)):
        told = _in_processes(playbooks, proven, sources, jobs, progress)
        if told is not None:
            return told
    return found(simulate(proven, histories, lambda reached: progress(reached.read)))


def worthwhile(files: Sequence[History]) -> int:
    """How many processes these files are worth, of those that may run at once."""
    size = sum(file.size * (_PACKED if file.is_packed() else 1) for file in files)
    return max(1, min(cores(), size // _ENOUGH))


def run_dry(playbooks: Sequence[Playbook], reached: Sequence[Reached]) -> bool:
    """Whether more codes of a pool are wanted than there are: then it depends on all customers who gets the last."""
    for number, playbook in enumerate(playbooks):
        wanted: Counter[str] = Counter()
        for one in reached:
            if one.wanted:
                wanted.update(one.wanted[number])
        for name, pool in playbook.coupons.items():
            most = most_of(pool)
            if most is not None and wanted[name] > most:
                return True
    return False


def _in_processes(
    playbooks: Sequence[Files],
    proven: Sequence[Playbook],
    sources: Sequence[Source],
    jobs: int,
    progress: Callable[[int], None],
) -> Part | None:
    """None where a pool of coupons runs dry."""
    with started(jobs, playbooks, sources) as workers:
        known: dict[int, set[tuple[str, str]]] = {}
        while len(known) < jobs:
            known.update(said_by(workers, known))
        elsewhere = moved(chain.from_iterable(known.values()), jobs)
        known.clear()
        for worker in workers:
            _tell(worker, elsewhere)
        reached = [Reached(0, [])] * jobs
        ends: dict[int, datetime | None] = {}
        while len(ends) < jobs:
            for number, said in said_by(workers, ends):
                if isinstance(said, Ended):
                    ends[number] = said.at
                else:
                    reached[number] = said
                    progress(sum(one.read for one in reached) // jobs)
            if run_dry(proven, reached):
                return None
        end = max((at for at in ends.values() if at is not None), default=None)
        for worker in workers:
            _tell(worker, end)
        parts: dict[int, Part] = {}
        while len(parts) < jobs:
            for number, said in said_by(workers, parts):
                if isinstance(said, Part):
                    parts[number] = said
                else:
                    reached[number] = said
        # What time alone has brought may have asked for codes, too.
        return None if run_dry(proven, reached) else together([parts[number] for number in range(jobs)])


@contextmanager
def started(jobs: int, playbooks: Sequence[Files], sources: Sequence[Source]) -> Iterator[list[Worker]]:
    """So many processes; none of them is left when this is over."""
    context = get_context("spawn")
    workers: list[Worker] = []
    # Whoever presses Ctrl-C means the command, which ends its processes itself: they are born deaf to it.
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            for number in range(jobs):
                ours, theirs = context.Pipe()
                given = theirs, list(playbooks), list(sources), number, jobs
                process = context.Process(target=_live, args=given, daemon=True)
                process.start()
                theirs.close()
                workers.append(Worker(process, ours))
        finally:
            signal.signal(signal.SIGINT, heard)
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.connection.close()


def said_by(workers: Sequence[Worker], done: Mapping[int, Any]) -> Iterator[tuple[int, Any]]:
    """What those who are not done say next, once somebody does. Raises RapportError where one has failed or is lost."""
    listening: dict[Any, int] = {
        worker.connection: number for number, worker in enumerate(workers) if number not in done
    }
    for connection in wait(list(listening)):
        number = listening[connection]
        try:
            said = workers[number].connection.recv()
        except (EOFError, OSError):
            raise _lost(workers[number].process) from None
        if isinstance(said, Failed):
            raise RapportError(said.text)
        yield number, said


def _tell(worker: Worker, said: Any) -> None:
    try:
        worker.connection.send(said)
    except OSError:
        raise _lost(worker.process) from None


def _lost(process: BaseProcess) -> RapportError:
    process.join()
    code = process.exitcode or 0
    if code < 0:
        return RapportError(
            f"A process of the simulation was killed ({signal.Signals(-code).name}). If it was for want of memory, let "
            f"fewer run at once: --jobs 1 takes the least."
        )
    return RapportError(f"A process of the simulation ended with code {code}; what it said stands above.")


def _live(connection: Connection, playbooks: Sequence[Files], sources: Sequence[Source], number: int, of: int) -> None:
    """The life of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_seldom()
    try:
        try:
            proven = [load(files) for files in playbooks]
            connection.send(set(addresses(_messages(sources, number, of))))
            histories = _opened(sources, Share(number, of, connection.recv()))
            simulations = simulate(proven, histories, connection.send, max(HELD // of, 1))
            ends = (simulation.findings.end for simulation in simulations)
            connection.send(Ended(next(ends)))
            end = connection.recv()
            for simulation in simulations:
                if end is not None:
                    simulation.wait_until(end)
            connection.send(Reached(0, [simulation.wanted for simulation in simulations]))
            connection.send(found(simulations))
        except RapportError as error:
            connection.send(Failed(str(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the command is gone, and nobody wants to know any more


def _opened(sources: Sequence[Source], share: Share) -> list[History]:
    return [History(path, columns, number, share) for number, (path, columns) in enumerate(sources)]


def _messages(sources: Sequence[Source], part: int, of: int) -> Iterator[bytes]:
    """A part of all that may say where somebody can be reached."""
    for history in _opened(sources, EVERYBODY):
        if history.columns is None or not {"traits", "context"}.isdisjoint(history.columns.objects):
            yield from history.messages(part, of)
