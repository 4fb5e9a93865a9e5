"""`rapport playbook check`, and how its findings are written for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.terminal import Folder, one_of

if TYPE_CHECKING:
    from shared.language import Problem

_FIELDS = ("file", "line", "column", "severity", "message", "remedy")


def check_in(playbook_app: typer.Typer) -> None:
    """Put the command under `rapport playbook`."""
    playbook_app.command("check")(playbook_check)


def playbook_check(
    folder: Folder,
    form: Annotated[str, typer.Option("--format", help="text, json or github.")] = "text",
) -> None:
    """Say every problem, as file:line:column; exit 1 where there is an error."""
    one_of(form, "text", "json", "github")

    from shared.language import PlaybookInvalid, check, read_folder

    try:
        problems = check(read_folder(folder))
    except PlaybookInvalid as refused:
        problems = refused.problems
    if form == "github":
        written = as_annotations(problems, folder)
    else:
        written = as_json(problems) if form == "json" else as_text(problems)
    if written:
        typer.echo(written)
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(1)


def as_text(problems: Sequence[Problem]) -> str:
    return "\n".join(map(str, problems)) or "no problems"


def as_json(problems: Sequence[Problem]) -> str:
    return json.dumps([{name: getattr(problem, name) for name in _FIELDS} for problem in problems], indent=2)


def as_annotations(problems: Sequence[Problem], folder: Path) -> str:
    """Workflow commands of GitHub Actions, which show each problem beside its line in a pull request
    (https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions)."""
    lines = []
    for problem in problems:
        file = problem.file if problem.file == str(folder) else (folder / problem.file).as_posix()
        place = f"file={_property(file)},line={problem.line},col={problem.column}"
        lines.append(f"::{problem.severity} {place}::{_data(f'{problem.message} {problem.remedy}'.rstrip())}")
    return "\n".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
