"""`rapport why`: everything that was decided about a customer, or why a message was not sent, as a person reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from services.terminal import DEFAULT_DATA, Data, database, out, run
from shared.errors import RapportError

if TYPE_CHECKING:
    from rich.text import Text

    from services.journeys.story import Answer, Rule, Story
    from shared.contracts.story import Mailed, Remembered
    from shared.processing.playbooks import Shelf
    from shared.processing.port import Connection


def why_in(app: typer.Typer) -> None:
    app.command("why")(why)


def why(
    customer: Annotated[str, typer.Argument(help="The customer's key: the user id, else the anonymous id.")],
    message: Annotated[
        str | None, typer.Argument(help="Only what is about it: a message (its name or id), or a journey.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs, as the HTTP API gives it.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """What was decided about a customer, in order, each with its rule; why a mail did not come, and what to do."""

    async def work() -> None:
        async with database(data) as connection:
            story = await story_of(connection, customer, message)
        if as_json:
            sys.stdout.write(story.as_json(indent=2) + "\n")
            return
        for line in lines(story):
            out.print(line, highlight=False, soft_wrap=True)

    run(work())


async def story_of(connection: Connection, customer: str, subject: str | None) -> Story:
    """The story, from the tables of the three services. Raises RapportError where nobody has this key."""
    from services.journeys import telling
    from shared.contracts.streams import partition_of
    from shared.processing.installation import open_installation
    from shared.processing.playbooks import PlaybookShelf
    from shared.settings import Settings

    settings, shelf = Settings.read(), PlaybookShelf()
    installation = await open_installation(connection, settings.partitions, None)
    partition, kept = partition_of(customer, settings.partitions), timedelta(days=settings.story_days)
    story = await telling.story_of(
        connection,
        shelf,
        _AllTables(connection, shelf, partition),
        partition,
        customer,
        subject,
        installation.clock.now(),
        kept,
    )
    if story is None:
        raise RapportError(f"no customer has the key {customer!r}. It is the user id, else the anonymous id.")
    return story


class _AllTables:
    """The others' parts of the story (`services.journeys.telling.Elsewhere`), by their own functions."""

    def __init__(self, connection: Connection, shelf: Shelf, partition: int) -> None:
        self._connection, self._shelf, self._partition = connection, shelf, partition

    async def remembered(self, customer: str, since: datetime, names: Sequence[str]) -> Remembered:
        from services.segmenter import past

        rulebook = past.Rulebook(self._shelf)
        return await past.remembered(self._connection, rulebook, self._partition, customer, since, names)

    async def mailed(self, customer: str, since: datetime) -> Mailed:
        from services.mailer import past

        return await past.mailed(self._connection, self._partition, customer, since)


_MARGIN = " " * len("2026-03-02 20:14  ")
_STYLES = {"sent": "green", "skipped": "red", "failed": "red", "unknown": "yellow", "declined": "red", "held": "yellow"}


def lines(story: Story) -> Iterator[Text]:
    """A story for a person: a line for each decision, those of a journey below its name, and the answers at the end."""
    from rich.text import Text

    from services.journeys.unsent import NOTHING

    zone, around = ZoneInfo(story.timezone), ("", "")
    if story.entries:
        yield Text(f"times in {story.timezone}", style="dim")
    for entry in story.entries:
        own = (entry.journey, entry.key)
        if entry.journey and own != around:
            yield Text(f"{_MARGIN}{entry.journey}{f' {entry.key}' if entry.key else ''}", style="bold")
        around = own
        indent = "  " if entry.journey else ""
        line = Text(f"{entry.at.astimezone(zone):%Y-%m-%d %H:%M}  {indent}")
        line.append(entry.text, style=_STYLES.get(entry.what, ""))
        yield _with_rule(line, entry.rule, story.playbook)
        if entry.remedy not in ("", NOTHING) and entry.what in ("skipped", "failed", "unknown", "parked"):
            yield Text(f"{_MARGIN}{indent}  What to do: {entry.remedy}", style="dim")
    if not story.entries and not story.answers:
        yield Text(f"nothing was decided about {story.customer} since {story.since.astimezone(zone):%Y-%m-%d}")
    for number, answer in enumerate(story.answers):
        if story.entries or number:
            yield Text("")
        yield from _answered(answer, story.playbook)


def _answered(answer: Answer, in_force: str) -> Iterator[Text]:
    from rich.text import Text

    line = Text(f"{answer.about}: ", style="bold")
    line.append(answer.text, style="not bold")
    yield _with_rule(line, answer.rule, in_force)
    if answer.remedy:
        yield Text(f"What to do: {answer.remedy}")


def _with_rule(line: Text, rule: Rule | None, in_force: str) -> Text:
    if rule is not None:
        # Only where it is not what stands there today.
        version = f" @{rule.playbook}" if rule.playbook != in_force else ""
        line.append(f"  {rule.file}:{rule.line}{version}", style="dim")
    return line
