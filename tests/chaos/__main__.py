"""`make chaos`: hurt everything for a while, at random from a seed, and hold the ledger against what is left."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import Run, report


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--log", choices=("kafka", "postgres", "both"), default="both")
    parser.add_argument("--minutes", type=float, default=None, help="how long to hurt each log")
    parser.add_argument("--faults", type=int, default=None, help="how many faults to inject on each log")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two faults, on average")
    parser.add_argument("--report", type=Path, help="append the report to this file")
    options = parser.parse_args()
    if options.minutes is None and options.faults is None:
        options.minutes = 2.0
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    bad = False
    for log in ("kafka", "postgres") if options.log == "both" else (options.log,):
        with tempfile.TemporaryDirectory(prefix="rapport-chaos-", ignore_cleanup_errors=True) as folder:
            begun = time.monotonic()
            seconds = options.minutes * 60 if options.minutes else 86_400.0
            run = Run(log, seed, seconds, options.faults or 1 << 30, options.pause, _say, Path(folder))
            world, verdict = asyncio.run(run.go())
            text = report(world, verdict, time.monotonic() - begun)
            _say(text)
            if options.report:
                with open(options.report, "a") as file:
                    file.write(f"{text}\n\n")
            for name, count in world.noise.most_common():
                _say(f"  said {count} times: {name}")
            for violation in verdict.violations[:50]:
                _say(f"VIOLATION {violation}")
            if verdict.violations:
                bad = True
                bound = f"MINUTES={options.minutes}" if options.minutes else f"FAULTS={options.faults}"
                _say(f"To repeat: make chaos LOG={log} {bound} SEED={seed} (the schedule repeats, its instants nearly)")
                kept = Path(tempfile.mkdtemp(prefix=f"rapport-chaos-{log}-logs-"))
                shutil.copytree(f"{folder}/logs", kept, dirs_exist_ok=True)
                _say(f"The workers' logs are kept in {kept}")
    _say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {seed}")
    sys.exit(1 if bad else 0)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
