"""What the commands of a terminal share: where they find a running installation, and how they say what went wrong."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.errors import RapportError, words_of
from shared.harmless import harmless

if TYPE_CHECKING:
    from rich.segment import Segment
    from rich.table import Table

    from shared.processing.port import Connection
    from shared.settings import Settings


_ANY_WIDTH = 10_000
"""Characters. What a program reads has each row of a table on one line."""


class Terminal:
    """rich's console. It is imported when something is first printed: that takes longer than to check a playbook.

    What customers have written is text and no more: brackets are no markup, unless `markup` says that they are escaped,
    and what would move or colour the terminal shows as `\ufffd`."""

    def __init__(self, *, markup: bool = False, stderr: bool = False) -> None:
        self._markup, self._stderr = markup, stderr

    def print(self, *shown: Any, **how: Any) -> None:
        from rich.console import Console

        class Harmless(Console):
            def render(self, *args: Any, **options: Any) -> Iterator[Segment]:
                for segment in super().render(*args, **options):
                    yield segment if segment.control else segment._replace(text=harmless(segment.text))

        console = Harmless(markup=self._markup, stderr=self._stderr)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = _ANY_WIDTH
        console.print(*shown, **how)


out = Terminal()

DEFAULT_DATA = Path(".rapport")
READ_KEY = "read-key"
"""The file in --data with the key that reads customers, which `rapport up` made."""

Data = Annotated[Path, typer.Option(help="The --data of the running `rapport up`; not needed with DATABASE_URL.")]
By = Annotated[str | None, typer.Option(help="Who or what does it, for the history; the account, if not given.")]
Form = Annotated[str, typer.Option("--format", help="text or json.")]
Folder = Annotated[Path, typer.Argument(help="The playbook's folder.", show_default=False)]

VERSION_SHOWN = 8
"""Characters of a journey's version that are shown."""


def columns(*headings: str) -> Table:
    """A table to add rows to."""
    from rich.table import Table

    return Table(*headings, box=None)


def say(text: str) -> None:
    """A line as it is, whatever brackets and figures are in it."""
    typer.echo(harmless(text))


def account() -> str:
    """Whose account this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's account may have no name
        return f"uid {os.getuid()}"


def somebody() -> str:
    """Whose account this is, and on which machine."""
    return f"{account()}@{socket.gethostname()}"


def one_of(form: str, *known: str) -> None:
    """Refuse a --format that there is not."""
    if form not in known:
        raise typer.BadParameter(f"there is no format {form!r}. There are {', '.join(known)}.")


@contextlib.asynccontextmanager
async def database(data: Path) -> AsyncIterator[Connection]:
    """A connection to the running installation's database."""
    from services import serving
    from shared.database.engine import Database

    settings = serving.visited(data)
    assert settings.database_url is not None
    opened = Database(settings.database_url)
    try:
        async with opened.connect() as connection:
            yield connection
    finally:
        await opened.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Do a command's work; what is wrong is said in a sentence, with exit code 1."""
    import asyncio

    from shared.settings import Settings
    from shared.telemetry import configure_logging

    try:
        settings = Settings.read()
        configure_logging(settings.log_level, settings.log_format)
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(work)
    except RapportError as error:
        work.close()
        fail(str(error))
    except Exception as error:
        from shared.database.engine import is_transient

        if isinstance(error, OSError) and error.filename is not None:
            fail(f"{error.filename}: {error.strerror}. Choose another place, or make this one usable.")
        if not is_transient(error):
            raise
        what = _servers(settings)
        fail(f"{what} does not answer: {words_of(error)}. Look whether it runs, and try again.")


def _servers(settings: Settings) -> str:
    """Those that a command may have asked, as the environment names them, without their passwords."""
    from urllib.parse import urlsplit

    url = urlsplit(settings.database_url or "")
    database = f"PostgreSQL at {url.hostname}:{url.port or 5432}" if url.hostname else "PostgreSQL"
    kafka = settings.kafka_bootstrap_servers
    return f"{database}, or Kafka at {kafka}," if kafka else database


def prove_writable(file: Path) -> None:
    """Before the work whose outcome is to stand there. Leaves everything as it was; raises RapportError."""
    existed = file.exists()
    try:
        file.open("ab").close()
        if not existed:
            file.unlink()
    except OSError as error:
        raise RapportError(f"{file} cannot be written: {error.strerror}. Name another file.") from None


def fail(text: str) -> None:
    Terminal(stderr=True).print(text, style="red", highlight=False, soft_wrap=True)
    sys.exit(1)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
