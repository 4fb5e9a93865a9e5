"""`rapport dead-letters`: records that could not be processed."""

from __future__ import annotations

from typing import Annotated

import typer

from services.terminal import DEFAULT_DATA, Data, columns, database, out, run, say

letters_app = typer.Typer(help="Records that could not be processed: list, read, try again.", no_args_is_help=True)


@letters_app.command("list")
def letters_list(
    service: Annotated[str | None, typer.Option(help="Only those of one service.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 50,
    data: Data = DEFAULT_DATA,
) -> None:
    """The newest dead letters."""

    async def work() -> None:
        from shared.processing import dead_letters

        async with database(data) as connection:
            letters = await dead_letters.newest(connection, service, limit)
        table = columns("id", "filed (UTC)", "service", "key", "code", "reason")
        for letter in letters:
            filed = letter.filed_at.strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(str(letter.id), filed, letter.service, letter.key, letter.code, letter.message)
        out.print(table if letters else "there are none")

    run(work())


@letters_app.command("show")
def letters_show(
    letter: Annotated[int, typer.Argument(help="Its id.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """One dead letter with its bytes."""

    async def work() -> None:
        from shared.processing import dead_letters

        async with database(data) as connection:
            found = await dead_letters.read(connection, letter)
        for name, value in found._asdict().items():
            shown = value.decode(errors="replace") if isinstance(value, bytes) else value
            say(f"{name + ':':<14}{shown}")

    run(work())


@letters_app.command("retry")
def letters_retry(
    letters: Annotated[list[int] | None, typer.Argument(help="Their ids.", show_default=False)] = None,
    service: Annotated[str | None, typer.Option(help="Instead: all of this service,")] = None,
    code: Annotated[str | None, typer.Option(help="or of this code, or of both.")] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Have the owners of their partitions process them again, in the order in which they were set aside."""
    if bool(letters) == bool(service or code):
        raise typer.BadParameter("give ids, or --service or --code.")

    async def work() -> None:
        from shared.processing import dead_letters

        async with database(data) as connection:
            if letters:
                asked = await dead_letters.ask_retry(connection, letters)
            else:
                asked = await dead_letters.ask_retry_of_all(connection, service, code)
        say(f"{asked} will be tried again within a second or two; see `rapport dead-letters list`")

    run(work())
