"""`rapport playbook check`, for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from services.__main__ import app, leave_out_what_is_not_asked_for
from shared.language import SHIPPED, read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in read_folder(SHIPPED).items():
        file = tmp_path / "shop, new" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "shop, new"


def check(folder: Path, *options: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["playbook", "check", str(folder), *options])
    return ran.exit_code, ran.output


def spoil(folder: Path) -> None:
    journeys = folder / "journeys"
    (journeys / "lots.yaml").write_text(
        "journey: lots\ntrigger: {event: Order Completed}\nsteps:\n"
        "  - id: tone\n    split: {a: {share: 60%, then: []}, b: {share: 50%}}\n"
    )
    (folder / "README.txt").write_text("Notes.\n")
    (folder / "messages" / "birthday" / "notes.doc").write_text("Notes.\n")


def test_a_sound_playbook(folder: Path) -> None:
    assert check(folder) == (0, "no problems\n")
    assert check(folder, "--format", "json") == (0, "[]\n")
    assert check(folder, "--format", "github") == (0, "")


def test_problems_as_text_with_exit_code(folder: Path) -> None:
    spoil(folder)
    code, output = check(folder)
    assert code == 1
    assert output.splitlines() == [
        "journeys/lots.yaml:4:5: these shares make 110%. Let them make 100%.",
        "messages/birthday/notes.doc:1:1: warning: nothing reads this file. "
        "A message has message.yaml, subject.txt, body.mjml, body.html, body.txt, sms.txt and push.yaml.",
    ]


def test_problems_as_json(folder: Path) -> None:
    spoil(folder)
    code, output = check(folder, "--format", "json")
    error, warning = json.loads(output)
    assert (code, warning["severity"]) == (1, "warning")
    assert error == {
        "file": "journeys/lots.yaml",
        "line": 4,
        "column": 5,
        "severity": "error",
        "message": "these shares make 110%.",
        "remedy": "Let them make 100%.",
    }


def test_problems_as_annotations_of_a_pull_request(folder: Path) -> None:
    spoil(folder)
    code, output = check(folder, "--format", "github")
    place = str(folder).replace(",", "%2C")
    assert code == 1
    assert output.splitlines()[0] == (
        f"::error file={place}/journeys/lots.yaml,line=4,col=5::these shares make 110%25. Let them make 100%25."
    )


def test_a_warning_alone_fails_nothing(folder: Path) -> None:
    (folder / "messages" / "birthday" / "notes.doc").write_text("Notes.\n")
    assert check(folder)[0] == 0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, output = check(tmp_path / "none")
    assert (code, output) == (
        1,
        f"{tmp_path}/none:1:1: there is no such folder. Give the folder that holds rapport.yaml.\n",
    )


def test_a_format_that_there_is_not(folder: Path) -> None:
    code, output = check(folder, "--format", "sarif")
    assert code == 2
    assert "There are text, json, github." in output


def test_the_commands_begin_without_what_only_others_need() -> None:
    """Half a second is what somebody waits without noticing, and these would be much of it."""
    heavy = ["asyncio", "inscriptis", "rich.console", "sqlalchemy", "starlette", "uvicorn", "aiokafka"]
    modules = "services.__main__, shared.language, services.trials.running"
    program = f"import {modules}, sys; print([n for n in {heavy} if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "[]\n"


def ready(*words: str) -> dict[str | None, list[str | None]]:
    """The commands that are made ready for such a line, by group."""
    shop, goods, bills = Typer(), Typer(), Typer()
    shop.command("up")(print)
    for group, name in ((goods, "goods"), (bills, "bills")):
        group.command("list")(print)
        group.command("show")(print)
        shop.add_typer(group, name=name)
    leave_out_what_is_not_asked_for(shop, *words)
    found = {one.name: one.typer_instance for one in shop.registered_groups}
    groups = {None: shop} if shop.registered_commands else {}
    return {
        name: [command.name for command in inside.registered_commands]
        for name, inside in (groups | found).items()
        if inside is not None
    }


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("goods", "show", "list"), {"goods": ["show"]}),
        (("goods", "--help"), {"goods": ["list", "show"]}),
        (("goods", "shwo"), {"goods": ["list", "show"]}),
        (("up", "goods"), {None: ["up"], "goods": ["list", "show"], "bills": ["list", "show"]}),
        ((), {None: ["up"], "goods": ["list", "show"], "bills": ["list", "show"]}),
    ],
)
def test_no_command_is_made_ready_beside_the_one_that_is_asked_for(
    words: tuple[str, ...], left: dict[str | None, list[str]]
) -> None:
    assert ready(*words) == left
