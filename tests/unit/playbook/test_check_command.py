"""`rapport playbook check`, for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.__main__ import app
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


def test_the_command_begins_without_what_only_others_need() -> None:
    """Half a second is what somebody waits without noticing, and these would be much of it."""
    heavy = ["asyncio", "inscriptis", "rich.console", "sqlalchemy", "starlette", "uvicorn", "aiokafka"]
    program = f"import services.__main__, shared.language, sys; print([n for n in {heavy} if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "[]\n"
