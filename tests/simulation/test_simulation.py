"""Histories of the whole, each from its seed: `python -m tests.simulation --seed N` plays one again and tells it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# They take a minute or two; other tests may be at work beside them.
pytestmark = pytest.mark.timeout(600)


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)


def test_no_history_breaks_a_law_and_each_gives_the_same_when_replayed_in_one_piece_and_in_memory() -> None:
    played = simulate("--histories", "30", "--jobs", "2", "--replay")
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.parametrize("seed", [3])
def test_a_seed_tells_the_same_story_whatever_was_played_before(seed: int) -> None:
    alone = simulate("--first", str(seed), "--histories", "1", "--trace").stdout.splitlines()[0]
    after_another = simulate("--first", str(seed - 1), "--histories", "2", "--trace").stdout.splitlines()
    assert alone.startswith(f"{seed}: ")
    assert alone in after_another
