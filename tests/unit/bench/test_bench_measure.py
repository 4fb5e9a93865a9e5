"""The runner of the benchmarks: its arithmetic, and what becomes of a round that fails."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.measure import Figure, Round, RoundFailed, Series, chosen, in_a_process, measure, summed_up


def nothing(folder: Path) -> float:
    return 0.0


def series(**more: object) -> Series:
    return Series(**{"name": "s", "unit": "events/s", "run": nothing, "limit": nothing, **more})  # type: ignore[arg-type]


def alone(run: float | None, limit: float | None = None) -> Round:
    return Round(
        None if run is None else {"": run},
        None if limit is None else {"": limit},
    )


class Script:
    """Answers each turn with what is written for it; an exception is raised."""

    def __init__(self, **turns: list[Figure | Exception]) -> None:
        self.turns, self.calls = turns, list[str]()

    def __call__(self, turn: str, folder: Path) -> Figure | None:
        self.calls.append(turn)
        said = self.turns[turn].pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def told(text: str) -> None:
    pass


def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    # The machine was slow in the second round, for both: the quotient of the medians would say 0.9.
    [result] = summed_up(series(), [alone(80, 100), alone(45, 50), alone(90, 180)])
    assert (result.median, result.limit) == (80, 100)
    assert result.ratio == 0.8


def test_where_less_is_better_the_ratio_still_grows_with_what_is_better() -> None:
    [result] = summed_up(series(more_is_better=False, goal=10.0, ratio_goal=2.0), [alone(5, 20), alone(8, 16)])
    assert result.ratio == 3.0
    assert result.reached


def test_goals_are_missed_where_either_is() -> None:
    [result] = summed_up(series(goal=100.0, ratio_goal=0.8), [alone(120, 200)])
    assert result.reached is False
    [result] = summed_up(series(goal=100.0, ratio_goal=0.5), [alone(120, 200)])
    assert result.reached is True
    [result] = summed_up(series(), [alone(120, 200)])
    assert result.reached is None


def test_each_named_figure_has_its_own_goal() -> None:
    def one(figures: Mapping[str, float]) -> Round:
        return Round(figures, None)

    rounds = [one({"p50": 4, "p99": 30}), one({"p50": 6, "p99": 90}), one({"p50": 5, "p99": 80})]
    p50, p99 = summed_up(series(limit=None, more_is_better=False, goal={"p50": 10, "p99": 50}), rounds)
    assert (p50.figure, p50.median, p50.reached) == ("p50", 5, True)
    assert (p99.figure, p99.median, p99.reached) == ("p99", 80, False)


def test_a_figure_of_another_unit_has_its_own() -> None:
    measured = series(units={"µs of": "µs an event"})
    results = summed_up(measured, [Round({"": 7.0, "minute 1, µs of services": 3.0}, None)])
    assert [one.unit for one in results] == ["events/s", "µs an event"]


def test_a_round_that_fails_is_told_and_loses_no_other(tmp_path: Path) -> None:
    script = Script(run=[10.0, RoundFailed("exit 1."), 30.0], limit=[20.0, 40.0, 40.0])
    measured = measure(series(rounds=3), script, tmp_path, told)
    assert measured.failures == ["run 2: exit 1."]
    [result] = measured.results
    assert result.runs == [10.0, 30.0]
    assert result.ratios == [0.5, 0.75]


def test_run_and_limit_take_turns_in_going_first(tmp_path: Path) -> None:
    script = Script(run=[1.0] * 3, limit=[1.0] * 3)
    measure(series(rounds=3), script, tmp_path, told)
    assert script.calls == ["run", "limit", "limit", "run", "run", "limit"]


def test_without_preparation_there_are_no_rounds(tmp_path: Path) -> None:
    script = Script(prepare=[RoundFailed("exit 1.")], run=[1.0])
    measured = measure(series(prepare=nothing), script, tmp_path, told)
    assert (measured.failures, measured.results, script.calls) == (["prepare: exit 1."], [], ["prepare"])


def test_one_is_chosen_by_its_module_or_its_name() -> None:
    known = [
        ("bench.ingest", series(name="ingest, single")),
        ("bench.segmenter", series(name="segmenter, zipf")),
        ("bench.segmenter", series(name="segmenter, 5M", long=True)),
    ]
    assert [one.name for _, one in chosen(known, "segmenter", False)] == ["segmenter, zipf"]
    assert [one.name for _, one in chosen(known, "single", False)] == ["ingest, single"]
    assert [one.name for _, one in chosen(known, "", True)] == ["segmenter, 5M"]


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes find this module."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def fails(folder: Path) -> float:
    raise ValueError("the folder is empty")


def asks_too_much(folder: Path) -> float:
    signal.pause()
    return 0.0


def counts(folder: Path) -> Figure:
    return {"p50": 1.5}


SERIES = (
    Series("fails", "s", fails),
    Series("hangs", "s", asks_too_much, seconds=1),
    Series("counts", "s", counts),
)


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(("name", "said"), [("fails", "the folder is empty"), ("hangs", "no end within 1 s")])
def test_a_process_that_fails_says_why(name: str, said: str, tmp_path: Path) -> None:
    [one] = [one for one in SERIES if one.name == name]
    with pytest.raises(RoundFailed, match=said):
        in_a_process(__name__, one)("run", tmp_path)


@pytest.mark.usefixtures("importable")
def test_a_process_brings_its_figure_back(tmp_path: Path) -> None:
    assert in_a_process(__name__, SERIES[2])("run", tmp_path) == {"p50": 1.5}
