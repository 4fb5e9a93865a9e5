"""How everything is measured here: a Series of rounds, each in a process of its own, interleaved with its limit.

A module of `bench` says what it measures in `SERIES`. A round of it is `run(folder) -> Figure`, and the limit that it
is held against is another function of that kind. They take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from shared.cores import cores
from shared.memory import collect_seldom

Figure = float | Mapping[str, float]
"""What one round found; a mapping where it finds several (`{"p50": 4.1, "p99": 20.0}`)."""
Goal = float | Mapping[str, float] | None
"""What is to be reached: one for all figures, or one for each that is named."""

ROOT = Path(__file__).parents[1]
ALONE = ""
"""The name of a figure that is the only one of its round."""


@dataclass(frozen=True)
class Series:
    """One thing that is measured.

    `prepare` is called once, `run` and `limit` in each round; all get the same folder, which others may enter (so that
    a PostgreSQL server may run there) and which is removed in the end. `ratio` is always such that more is better:
    `run / limit`, or `limit / run` where less is better. `goal` is for the figure, `ratio_goal` for the ratio.
    `units` are those of figures that have another than `unit`, by words of their names.
    `seconds`: a call that takes longer has failed. A `long` series runs in `make bench-long` alone.
    """

    name: str
    unit: str
    run: Callable[[Path], Figure]
    limit: Callable[[Path], Figure] | None = None
    limit_name: str = ""
    goal: Goal = None
    ratio_goal: Goal = None
    prepare: Callable[[Path], None] | None = None
    more_is_better: bool = True
    units: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 5
    long: bool = False
    seconds: float = 300


@dataclass(frozen=True)
class Round:
    """What a pair of processes found; None for one that failed, or that the series does not have."""

    run: Mapping[str, float] | None
    limit: Mapping[str, float] | None


@dataclass(frozen=True)
class Result:
    """One figure of a series over all its rounds. Medians are None where no round succeeded."""

    series: str
    figure: str
    unit: str
    limit_name: str
    runs: Sequence[float]
    limits: Sequence[float]
    ratios: Sequence[float]
    goal: float | None
    ratio_goal: float | None
    more_is_better: bool

    @property
    def median(self) -> float | None:
        return median(self.runs) if self.runs else None

    @property
    def limit(self) -> float | None:
        return median(self.limits) if self.limits else None

    @property
    def ratio(self) -> float | None:
        """The median of the ratios of each round, since the two of a round ran under the same conditions."""
        return median(self.ratios) if self.ratios else None

    @property
    def reached(self) -> bool | None:
        """Whether the goals are; None where there are none."""
        verdicts: list[bool] = []
        if self.goal is not None:
            found = self.median
            verdicts.append(found is not None and (found >= self.goal if self.more_is_better else found <= self.goal))
        if self.ratio_goal is not None:
            verdicts.append(self.ratio is not None and self.ratio >= self.ratio_goal)
        return all(verdicts) if verdicts else None


@dataclass
class Measured:
    """What became of one series."""

    series: Series
    results: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class RoundFailed(Exception):
    """A process of a round ended without a figure; the text says what it said last."""


Start = Callable[[str, Path], Figure | None]
"""Calls `prepare`, `run` or `limit` of the series in a process of its own. Raises RoundFailed."""


def measure(series: Series, start: Start, folder: Path, tell: Callable[[str], None]) -> Measured:
    """All rounds of a series. A round that fails is told and counted, and the others go on."""
    measured = Measured(series)
    if series.prepare is not None:
        tell(f"{series.name}: prepare")
        try:
            start("prepare", folder)
        except RoundFailed as failed:
            measured.failures.append(f"prepare: {failed}")
            tell(f"{series.name}: prepare failed")
            return measured
    rounds: list[Round] = []
    for number in range(1, series.rounds + 1):
        found: dict[str, Mapping[str, float] | None] = {"run": None, "limit": None}
        # The order changes with each round, since the second of two finds another machine than the first.
        turns = ["run", "limit"] if number % 2 else ["limit", "run"]
        for turn in turns if series.limit is not None else ["run"]:
            tell(f"{series.name}: {turn} {number} of {series.rounds}")
            try:
                found[turn] = named(start(turn, folder))
            except RoundFailed as failed:
                measured.failures.append(f"{turn} {number}: {failed}")
                tell(f"{series.name}: {turn} {number} failed")
        rounds.append(Round(found["run"], found["limit"]))
    measured.results = summed_up(series, rounds)
    return measured


def summed_up(series: Series, rounds: Sequence[Round]) -> list[Result]:
    """A result for each figure that a run named, in the order in which it named them."""
    names = dict.fromkeys(name for one in rounds for name in one.run or ())
    return [_result(series, name, rounds) for name in names]


def _result(series: Series, name: str, rounds: Sequence[Round]) -> Result:
    pairs = [((one.run or {}).get(name), (one.limit or {}).get(name)) for one in rounds]
    ratios = [
        run / limit if series.more_is_better else limit / run
        for run, limit in pairs
        if run is not None and limit is not None and (limit if series.more_is_better else run)
    ]
    return Result(
        series=series.name,
        figure=name,
        unit=next((unit for words, unit in series.units.items() if words in name), series.unit),
        limit_name=series.limit_name,
        runs=[run for run, _ in pairs if run is not None],
        limits=[limit for _, limit in pairs if limit is not None],
        ratios=ratios,
        goal=_for(series.goal, name),
        ratio_goal=_for(series.ratio_goal, name) if series.limit is not None else None,
        more_is_better=series.more_is_better,
    )


def named(figure: Figure | None) -> Mapping[str, float]:
    if figure is None:
        raise RoundFailed("it found no figure.")
    return {name: float(one) for name, one in figure.items()} if isinstance(figure, Mapping) else {ALONE: float(figure)}


def _for(goal: Goal, figure: str) -> float | None:
    return goal.get(figure) if isinstance(goal, Mapping) else goal


# Processes


def found_series() -> tuple[list[tuple[str, Series]], list[str]]:
    """Every series with the module that it stands in, and what is wrong with modules that cannot be imported."""
    series: list[tuple[str, Series]] = []
    problems: list[str] = []
    for name in _modules():
        try:
            module = importlib.import_module(name)
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
            continue
        series.extend((name, one) for one in getattr(module, "SERIES", ()))
    return series, problems


def chosen(series: Sequence[tuple[str, Series]], only: str, long: bool) -> list[tuple[str, Series]]:
    """Those that `only` means: a module's name, or a part of the name of a series."""
    return [
        (module, one)
        for module, one in series
        if one.long == long and (not only or only == module.rpartition(".")[2] or only in one.name)
    ]


def _modules() -> Iterator[str]:
    for package in ("bench", "bench.rivals"):
        path = importlib.import_module(package).__path__
        for found in pkgutil.iter_modules(path):
            if not found.ispkg and found.name not in ("__main__", "measure"):
                yield f"{package}.{found.name}"


def in_a_process(module: str, series: Series) -> Start:
    """Starts `python -m bench.measure MODULE SERIES TURN FOLDER`, whose figure comes back in a file of the folder."""

    def start(turn: str, folder: Path) -> Figure | None:
        answer = folder / f"figure-{turn}.json"
        answer.unlink(missing_ok=True)
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.measure", module, series.name, turn, str(folder), str(answer)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_given_paths()])},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # A group of its own, so that whatever it starts and leaves behind ends with it.
                start_new_session=True,
            )
            try:
                code = process.wait(series.seconds)
            except subprocess.TimeoutExpired:
                raise RoundFailed(f"no end within {series.seconds:g} s. {_last(said)}") from None
            finally:
                _end(process)
            if code:
                raise RoundFailed(f"exit {code}. {_last(said)}")
        return json.loads(answer.read_text()) if answer.exists() else None

    return start


def _given_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last(said: Any) -> str:
    said.seek(0)
    text: str = said.read()
    return text[-1500:].strip()


def machine() -> dict[str, str]:
    """What a figure depends on: the machine, what runs on it, and the commit."""
    return {
        "cpu": _after_colon("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(cores()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f} as it began",
        "python": platform.python_version(),
        "postgresql": _postgresql(),
        "commit": _commit(),
    }


def _after_colon(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _postgresql() -> str:
    from shared.database.embedded import binaries

    return _said(str(binaries() / "postgres"), "--version").rpartition(" ")[2]


def _commit() -> str:
    changed = "" if not _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no") else ", changed"
    return (_said("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD") or "unknown") + changed


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if not done.returncode else ""


def main() -> None:
    """What a process of a round does."""
    module, name, turn, folder, answer = sys.argv[1:]
    collect_seldom()  # as the processes of the services do
    series = next(one for one in importlib.import_module(module).SERIES if one.name == name)
    figure = getattr(series, turn)(Path(folder))
    if figure is not None:
        Path(answer).write_text(json.dumps(figure))


if __name__ == "__main__":
    main()
