"""What the pages for people name exists: links, sections, make's targets, commands and their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from services.__main__ import app

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RAPPORT = typer.main.get_command(app)


def named(page: Path) -> str:
    return page.name


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def sections(page: Path) -> set[str]:
    """As GitHub names them in links."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        file, _, section = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), target
        assert not section or section in sections(there), target


def typed(page: Path, command: str) -> list[str]:
    """All that a reader may type: lines of code, and what stands between backticks."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    blocks = "".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    lines: list[str] = re.findall(rf"^\s*(?:- run: |\$ )?(?:\.venv/bin/)?({command} .*)$", blocks, re.MULTILINE)
    inline: list[str] = re.findall(rf"`({command} [^`]+)`", re.sub(r"\s*\n\s*", " ", prose(page)))
    return lines + inline


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_targets_of_make_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {line.split()[1] for line in typed(page, "make")} <= targets


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_take_what_they_are_given(page: Path) -> None:
    for line in typed(page, "rapport"):
        words = shlex.split(re.split(r"[|>]", line)[0], comments=True)[1:]
        command: Any = RAPPORT
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            word = words.pop(0)
            assert word in command.commands, line
            command = command.commands[word]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= options, line
