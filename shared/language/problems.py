"""What can be wrong with a playbook, said so that its writer knows where to look and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from shared.errors import RapportError

Severity = Literal["error", "warning"]
MAX_REMARKS: Final = 20
"""On one expression; more would be noise: one slip early in a text tends to be followed by others that are none."""


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing wrong at one place. `line` and `column` count from 1; `message` and `remedy` are whole sentences.

    An error keeps a playbook from loading; a warning does not.
    """

    file: str
    line: int
    column: int
    message: str
    remedy: str
    severity: Severity = "error"

    def __str__(self) -> str:
        remark = "warning: " if self.severity == "warning" else ""
        return f"{self.file}:{self.line}:{self.column}: {remark}{self.message} {self.remedy}".rstrip()


class PlaybookInvalid(RapportError):
    """A playbook that does not load. `problems` holds everything that is wrong, sorted by place."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Remark(msgspec.Struct, frozen=True):
    """Something wrong or doubtful in an expression: where (0-based, in characters), what, and what to do."""

    offset: int
    length: int
    code: str
    message: str
    remedy: str


def first_of_each(problems: Iterable[Remark]) -> list[Remark]:
    """In order of place, one for each place, and not more than a person reads."""
    by_place: dict[int, Remark] = {}
    for problem in problems:
        by_place.setdefault(problem.offset, problem)
    return [by_place[offset] for offset in sorted(by_place)][:MAX_REMARKS]


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that `word` was probably meant to be; they are alike by `cutoff` at least (1 is the same)."""
    names = sorted(known)
    folded = {name.casefold(): name for name in reversed(names)}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """`Did you mean "x"?` where a known word is near, else `otherwise`."""
    found = nearest(word, known)
    return f'Did you mean "{found}"?' if found else otherwise


def listed(words: Sequence[str], conjunction: str = "or") -> str:
    """`a, b or c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def quoted(word: str, limit: int = 60) -> str:
    """The word between double quotes, cut where it is very long, on one line."""
    flat = " ".join(word.split())
    return f'"{flat if len(flat) <= limit else flat[: limit - 1] + "…"}"'
