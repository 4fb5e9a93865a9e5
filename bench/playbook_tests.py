"""How long the tests of a playbook take: to begin, and a thousand of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from bench.measure import Series
from services.mailer.composing import Composer
from services.mailer.links import Links
from services.trials.running import run
from shared.language import SHIPPED, load_with_tests, read_folder

TESTS = 1_000


def start(folder: Path) -> dict[str, float]:
    """Seconds for the command with a single test, from nothing to its end, with Python's bytecode kept, as it is where
    Rapport was installed; and for Python to begin at all."""
    python = [sys.executable, "-X", f"pycache_prefix={folder}"]
    one = [*python, "-m", "services", "playbook", "test", str(SHIPPED), "-k", "a small cart"]
    return {"one test": _seconds(one), "an empty Python": _seconds([*python, "-c", ""])}


def prepare(folder: Path) -> None:
    """The first run writes the bytecode."""
    start(folder)


def thousand(folder: Path) -> dict[str, float]:
    """Seconds for a thousand tests: those of the shipped playbook, over and over. Most tell 400 days."""
    loaded = load_with_tests(read_folder(SHIPPED))
    compose = Composer(Links(b"measured", "https://links.invalid"))
    numbered = [(tested, number) for tested in loaded.tests for number in range(len(tested.tests))]
    begun = perf_counter()
    for count in range(TESTS):
        verdict = run(loaded, compose, *numbered[count % len(numbered)])
        if verdict.differences:
            raise RuntimeError(f"{verdict.test.name}: {verdict.differences[0]}")
    return {"a thousand": perf_counter() - begun}


def _seconds(command: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begun = perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return perf_counter() - begun


SERIES = (
    Series(
        "playbook test, start",
        "s",
        run=start,
        goal={"one test": 0.5},
        more_is_better=False,
        prepare=prepare,
        rounds=5,
    ),
    Series("playbook test, 1,000 tests", "s", run=thousand, goal=10.0, more_is_better=False, rounds=3),
)
