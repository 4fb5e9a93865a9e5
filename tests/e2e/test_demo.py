"""`rapport demo` ends by itself and has found, from outside, that nothing was lost and nothing came twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from house import rapport


async def test_the_demonstration_ends_by_itself_and_finds_nothing_lost_and_nothing_twice(
    folder: Path, measured: Callable[[str], None]
) -> None:
    report = folder / "report.json"
    began = time.monotonic()
    said = await rapport("demo", "--for", "20s", "--headless", "--port", "0", "--report", report)
    assert said == (0, "")
    told = json.loads(report.read_text())
    measured(f"rapport demo --for 20s: {time.monotonic() - began:.1f} s, {told['events']}, {told['messages']}")
    assert set(told) == {"events", "stages", "enrollments", "messages", "duplicates", "lost"}
    assert (told["duplicates"], told["lost"]) == (0, 0)
    events = told["events"]
    assert set(events) == {"accepted", "processed", "deduplicated", "dead"}
    assert events["dead"] == 0
    assert events["processed"] >= events["accepted"] - events["deduplicated"] > 100
    assert set(told["stages"]) <= {"attract", "convert", "retain", "delight"}
    # Whether somebody's birthday comes within these twenty hours depends on the hour at which they begin.
    assert {"abandoned-cart", "thank-you"} <= set(told["enrollments"]) <= {"abandoned-cart", "birthday", "thank-you"}
    for journey, ends in told["messages"].items():
        assert set(ends) == {"sent", "skipped", "failed", "unknown"}
        assert ends["sent"] <= told["enrollments"][journey] * 2
        assert (ends["failed"], ends["unknown"]) == (0, 0)
    assert told["messages"]["thank-you"]["sent"] > 0
    assert told["messages"]["abandoned-cart"]["sent"] > 0


async def test_the_demonstration_tells_what_happened_where_nobody_watches(folder: Path) -> None:
    """Standard output is no terminal, so there is no live picture, and it ends by itself."""
    said = await rapport("demo", "--for", "2s", "--port", "0", "--data", folder / "demo")
    assert said.code == 0
    assert "the mails are at http://127.0.0.1:" in said.output
    assert "compared with the inboxes from outside: 0 duplicates, 0 lost" in said.output
    assert (folder / "demo" / "postgres").exists()
