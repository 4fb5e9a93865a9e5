"""Measure: `python -m bench [--only NAME] [--json FILE] [--long] [--rounds N] [--list]`, or `make bench`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Measured, Result, chosen, found_series, in_a_process, machine, measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, each part beside its limit.")
    parser.add_argument("--only", default="", help="a module of bench (ingest), or a part of a series' name")
    parser.add_argument("--json", type=Path, help="write what was found there, too")
    parser.add_argument("--long", action="store_true", help="the series that take long, and only those")
    parser.add_argument("--rounds", type=int, help="instead of as many as each series says")
    parser.add_argument("--list", action="store_true", help="name the series, and measure nothing")
    options = parser.parse_args()
    # A file has room for the whole table.
    console, progress = Console(width=None if sys.stdout.isatty() else 160), Console(stderr=True)
    series, problems = found_series()
    for problem in problems:
        progress.print(f"cannot be measured: {problem}", style="red", markup=False)
    wanted = chosen(series, options.only, options.long)
    if options.list or not wanted:
        for module, one in series:
            console.print(f"{module.rpartition('.')[2]:16} {one.name}{' (long)' if one.long else ''}", markup=False)
        sys.exit(0 if options.list else f"no series is named like “{options.only}”. These are.")
    on, begun = machine(), perf_counter()
    measured: list[Measured] = []
    try:
        for module, one in wanted:
            if options.rounds:
                one = type(one)(**{**vars(one), "rounds": options.rounds})
            with tempfile.TemporaryDirectory(prefix="rapport-bench-", ignore_cleanup_errors=True) as folder:
                # PostgreSQL runs as another user than root, and has to reach its folder.
                Path(folder).chmod(0o755)
                measured.append(
                    measure(
                        one,
                        in_a_process(module, one),
                        Path(folder),
                        lambda text: progress.print(
                            f"{perf_counter() - begun:5.0f} s  {text}",
                            style="dim",
                            markup=False,
                            highlight=False,
                            soft_wrap=True,
                        ),
                    )
                )
    except KeyboardInterrupt:
        progress.print("interrupted: what was measured until then follows", style="red")
    show(console, on, measured, perf_counter() - begun)
    if options.json:
        options.json.write_text(json.dumps(as_json(on, measured), indent=1) + "\n")
    sys.exit(1 if problems or any(one.failures for one in measured) or len(measured) < len(wanted) else 0)


def show(console: Console, on: dict[str, str], measured: Sequence[Measured], took: float) -> None:
    console.print(
        ", ".join(f"{name} {value}" for name, value in on.items()), markup=False, highlight=False, soft_wrap=True
    )
    table = Table()
    table.add_column("measured", no_wrap=True)
    for column in ("median", "least … most", "unit", "goal", "limit", "ratio", "goal"):
        table.add_column(column, justify="left" if column == "unit" else "right", no_wrap=column != "limit")
    table.add_column("")
    for one in measured:
        for result in one.results:
            table.add_row(*_row(result))
        if one.failures:
            table.add_row(one.series.name, *[""] * 7, f"[red]{len(one.failures)} failed[/red]")
    console.print(table)
    for one in measured:
        for failure in one.failures:
            console.print(f"{one.series.name}: {failure}", style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{took:.0f} s in all", style="dim")


def _row(result: Result) -> list[str]:
    verdict = {None: "", True: "[green]reached[/green]", False: "[yellow]missed[/yellow]"}[result.reached]
    least_most = f"{number(min(result.runs))} … {number(max(result.runs))}" if result.runs else ""
    bound = "" if result.more_is_better else "≤ "
    return [
        result.series + (f": {result.figure}" if result.figure else ""),
        number(result.median),
        least_most,
        result.unit,
        bound + number(result.goal) if result.goal is not None else "",
        f"{number(result.limit)} {result.limit_name}" if result.limit is not None else "",
        f"{result.ratio:.2f}" if result.ratio is not None else "",
        f"{result.ratio_goal:g}" if result.ratio_goal is not None else "",
        verdict,
    ]


def number(value: float | None) -> str:
    """As many digits as one can trust: 12,345; 123.4; 1.234."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def as_json(on: dict[str, str], measured: Sequence[Measured]) -> dict[str, Any]:
    return {
        "machine": on,
        "series": [
            {
                "name": one.series.name,
                "failures": one.failures,
                "figures": [
                    {
                        "figure": result.figure,
                        "unit": result.unit,
                        "median": result.median,
                        "least": min(result.runs, default=None),
                        "most": max(result.runs, default=None),
                        "runs": list(result.runs),
                        "limit_name": result.limit_name,
                        "limit": result.limit,
                        "limits": list(result.limits),
                        "ratio": result.ratio,
                        "ratios": list(result.ratios),
                        "goal": result.goal,
                        "ratio_goal": result.ratio_goal,
                        "more_is_better": result.more_is_better,
                        "reached": result.reached,
                    }
                    for result in one.results
                ],
            }
            for one in measured
        ],
    }


if __name__ == "__main__":
    main()
