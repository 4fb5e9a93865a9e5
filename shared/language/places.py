"""Where in a playbook's files a rule stands, so that whoever asks why can be shown it. The playbook is proven."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from shared.language.durations import DurationError, parse_duration
from shared.language.graph import Layout, lay_out
from shared.language.journey_file import JourneyFile
from shared.language.problems import Problem
from shared.language.reading import read
from shared.language.source import Document, ListNode, MappingNode, Path, Scalar, child, parse

BRAND, STAGES, SEGMENTS, TOPICS = "rapport.yaml", "stages.yaml", "segments.yaml", "topics.yaml"


class Place(NamedTuple):
    """A line of a playbook's file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Places:
    """The places of one playbook; each file is read when somebody first asks for a place in it."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._documents: dict[str, Document | None] = {}
        self._layouts: dict[str, Layout | None] = {}

    def rule(self, file: str, *path: str | int) -> Place | None:
        """Where the key at the end of `path` stands, or the nearest thing around it. None: there is no such file."""
        document = self._document(file)
        return None if document is None else Place(file, document.at_key(path).line)

    def journey(self, journey: str, *path: str | int) -> Place | None:
        """As `rule`, in a journey's file."""
        return self.rule(_file_of(journey), *path)

    def step(self, journey: str, step: str) -> Place | None:
        """Where a step begins; the journey's first line where it has no step of this name."""
        return self.rule(_file_of(journey), *(self._path_of(journey, step) or ()))

    def cap(self, channel: str, limit: int, within: str) -> Place | None:
        """Where a cap stands that lets `limit` messages through in so long a time (a duration as it is written)."""
        document = self._document(BRAND)
        entries = None if document is None else document.node(("caps", channel))
        for number, entry in enumerate(entries.items if isinstance(entries, ListNode) else ()):
            if _text(child(entry, "limit")) == str(limit) and _as_long(_text(child(entry, "within")), within):
                return self.rule(BRAND, "caps", channel, number)
        return self.rule(BRAND, "caps")

    def written(self, journey: str, step: str, *path: str | int) -> str:
        """What is written at a path inside a step, on one line; empty where that is no single value."""
        document, place = self._document(_file_of(journey)), self._path_of(journey, step)
        if document is None or place is None:
            return ""
        return " ".join(_text(document.node((*place, *path))).split())

    def fields(self, journey: str, step: str, *path: str | int) -> list[str]:
        """The names of the fields at a path inside a step, as they are written."""
        document, place = self._document(_file_of(journey)), self._path_of(journey, step)
        node = document.node((*place, *path)) if document is not None and place is not None else None
        return list(node.entries) if isinstance(node, MappingNode) else []

    def written_in(self, file: str, *path: str | int) -> str:
        """What is written at a path of a file, on one line."""
        document = self._document(file)
        return "" if document is None else " ".join(_text(document.node(path)).split())

    def _path_of(self, journey: str, step: str) -> Path | None:
        if journey not in self._layouts:
            document = self._document(_file_of(journey))
            shape = read(document, JourneyFile, _proven) if document is not None else None
            self._layouts[journey] = lay_out(document, shape, _proven) if document is not None and shape else None
        layout = self._layouts[journey]
        placed = layout.by_id.get(step) if layout is not None else None
        return None if placed is None else placed.path

    def _document(self, file: str) -> Document | None:
        if file not in self._documents:
            data = self._files.get(file)
            self._documents[file] = None if data is None else parse(file, data, _proven)
        return self._documents[file]


def _file_of(journey: str) -> str:
    return f"journeys/{journey}.yaml"


def _text(node: object) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _as_long(written: str, within: str) -> bool:
    try:
        return parse_duration(written) == parse_duration(within)
    except DurationError:
        return False


def _proven(problem: Problem) -> None:
    """It was checked when it was applied; what a newer release would remark on it is no news here."""
