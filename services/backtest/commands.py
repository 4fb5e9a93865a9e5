"""`rapport simulate` and `rapport events export`."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.terminal import DEFAULT_DATA, Data, Folder, Terminal, database, prove_writable, run, say
from shared.clock import SystemClock
from shared.errors import RapportError

if TYPE_CHECKING:
    from services.backtest.report import Report


_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def simulate_in(app: typer.Typer) -> None:
    """Put the commands under `rapport`."""
    app.command()(simulate)
    events_app = typer.Typer(help="History: write out the events that the segmenter keeps.", no_args_is_help=True)
    events_app.command("export")(export)
    app.add_typer(events_app, name="events")


def simulate(
    folder: Folder,
    events: Annotated[
        list[Path],
        typer.Option(
            help="History: one Segment message a line (NDJSON), or CSV; packed by gzip or not. Several add up."
        ),
    ],
    compare: Annotated[
        Path | None, typer.Option(help="Another playbook's folder, to be put beside this one.", show_default=False)
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="For CSV: a file that says which column is what.", show_default=False)
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    html: Annotated[Path | None, typer.Option(help="Also write one HTML page with charts.", show_default=False)] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="How many processes; if not given, as many as there are cores and work for."),
    ] = None,
) -> None:
    """What a playbook would have done with history: who would have entered, and what would have been sent when."""
    if form not in ("table", "json"):
        raise typer.BadParameter(f"there is no format {form!r}. There are table and json.")
    try:
        _simulate(folder, events, compare, mapping, form, html, jobs)
    except RapportError as error:
        from services.terminal import fail

        fail(str(error))


def _simulate(
    folder: Path,
    events: list[Path],
    compare: Path | None,
    mapping: Path | None,
    form: str,
    html: Path | None,
    jobs: int | None,
) -> None:
    import msgspec

    from services.backtest.columns import read_mapping
    from services.backtest.page import as_page
    from services.backtest.processes import simulate_shared
    from services.backtest.reading import History
    from services.backtest.tables import as_comparison, as_tables
    from shared.language import read_folder

    if html is not None:
        prove_writable(html)
    columns = read_mapping(mapping) if mapping is not None else None
    sources = [(path, columns if _is_csv(path) else None) for path in events]
    size = sum(History(*source).size for source in sources)
    playbooks = [read_folder(one) for one in (folder, compare) if one is not None]
    with _shown(size) as progress:
        reports, _, comparison = simulate_shared(playbooks, sources, jobs, progress)
    names = _names(folder, compare)
    if html is not None:
        html.write_text(as_page(reports[0], names[0], comparison, names[1]), encoding="utf-8")
    if form == "json":
        encoded = msgspec.json.encode(comparison or reports[0])
        sys.stdout.write(msgspec.json.format(encoded, indent=2).decode() + "\n")
        _fail_without(reports[0])
        return
    out = Terminal(markup=True)
    for part in as_comparison(comparison, names) if comparison is not None else as_tables(reports[0]):
        out.print(part, highlight=False, soft_wrap=True)
    if html is not None:
        say(f"\nThe page with charts is {html}")
    _fail_without(reports[0])


def _names(folder: Path, compare: Path | None) -> tuple[str, str]:
    """What the playbooks are called: as their folders, which are said in full where both have one name."""
    name, other = folder.resolve().name, compare.resolve().name if compare is not None else ""
    return (name, other) if name != other else (str(folder), str(compare))


def _fail_without(report: Report) -> None:
    """A history of which nothing could be read is a mistake, whatever else is said."""
    if not report.events:
        raise typer.Exit(1)


def export(
    file: Annotated[Path, typer.Argument(help="Where to write: NDJSON, packed where it ends in .gz.")],
    days: Annotated[
        int | None, typer.Option(help="How far to go back; all that is kept, if not given.", show_default=False)
    ] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Write the events that the segmenter has taken, one Segment message a line: history for `rapport simulate`."""

    async def work() -> None:
        from services.backtest.exporting import message
        from services.segmenter.store import every_event

        prove_writable(file)
        since = SystemClock().now() - timedelta(days=days) if days is not None else _BEGINNING
        count = 0
        async with database(data) as connection:
            with gzip.open(file, "wb", compresslevel=5) if file.name.endswith(".gz") else file.open("wb") as lines:
                async for row in every_event(connection, since):
                    line = message(row)
                    if line is not None:
                        lines.write(line)
                        count += 1
        say(f"{count:,} events are in {file}")

    run(work())


def _is_csv(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".csv")


@contextmanager
def _shown(size: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, and nothing anywhere else."""
    if not sys.stderr.isatty():
        yield lambda read: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = ("simulating", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=size)
        yield lambda read: bar.update(task, completed=read)
