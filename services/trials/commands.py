"""`rapport playbook test`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from services.terminal import Folder, fail, one_of, say
from shared.errors import RapportError


def test_in(app: typer.Typer) -> None:
    """Put the command under `rapport playbook`."""
    app.command("test")(playbook_test)


def playbook_test(
    folder: Folder,
    name: Annotated[str, typer.Option("-k", help="Only tests, or journeys, whose name has this in it.")] = "",
    coverage: Annotated[bool, typer.Option("--coverage", help="Say which steps no test reaches.")] = False,
    form: Annotated[str, typer.Option("--format", help="text, github or junit.")] = "text",
) -> None:
    """Run the tests of journeys, on a clock of their own; exit 1 where one fails."""
    one_of(form, "text", "github", "junit")
    try:
        passed = _test(folder, name, coverage, form)
    except RapportError as error:
        fail(str(error))
    if not passed:
        raise typer.Exit(1)


def _test(folder: Path, name: str, coverage: bool, form: str) -> bool:
    from services.mailer.composing import Composer
    from services.mailer.links import Links
    from services.trials import report
    from services.trials.coverage import covered
    from services.trials.running import run
    from shared.language import load_with_tests, read_folder

    loaded = load_with_tests(read_folder(folder))
    compose = Composer(Links(b"tested", "https://links.invalid"))
    started = time.perf_counter()
    verdicts = [
        run(loaded, compose, tested, number)
        for tested in loaded.tests
        for number, test in enumerate(tested.tests)
        if name.casefold() in f"{tested.journey} {test.name}".casefold()
    ]
    seconds = time.perf_counter() - started
    if not verdicts:
        wanted = f"no test has {name!r} in its name." if name else "there are no tests."
        raise RapportError(
            f"{folder}: {wanted} They stand in journeys/<name>.test.yaml: see docs/testing-playbooks.md."
        )
    if form == "junit":
        typer.echo(report.in_junit(verdicts, seconds))
    elif form == "github":
        for line in report.for_github(verdicts, folder.as_posix()):
            typer.echo(line)
    else:
        for line in report.in_text(verdicts, seconds):
            say(line)
    if coverage:
        footprints = {one for verdict in verdicts for one in verdict.story.footprints}
        for line in report.of_coverage(covered(loaded.playbook, loaded.places, footprints)):
            typer.echo(line, err=form == "junit")
    return not any(verdict.differences for verdict in verdicts)
