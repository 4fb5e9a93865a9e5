"""The file that says who may post: the sources and the hashes of their write keys. Pure: text -> sources.

sources:
  - name: shop
    keys:
      - 5f0c…64 hexadecimal digits…   # printed by `rapport keys new`
    rate: 500      # events per second and key; without it, RAPPORT_INGEST_RATE
    burst: 5000    # how many may come at once; without it, ten seconds' worth
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import yaml

from services.ingest.rates import Rate, rate_of
from shared.errors import RapportError

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_HASH = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Source(NamedTuple):
    """Who posts. `rate` is what the file says of each of its write keys; None where it says nothing."""

    name: str
    rate: Rate | None = None


class KeyFileInvalid(RapportError):
    """The file cannot be used; the text has a line for each thing that is wrong, with its place."""


def read_sources(text: str, file: str) -> Mapping[str, Source]:
    """From each key's hash (SHA-256, hexadecimal) to its source. Raises KeyFileInvalid.

    YAML, and thereby JSON. Everything is read as the text that was written, so a name like `no` is a name.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise KeyFileInvalid(f"{place}: {error.problem}. Correct the YAML.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise KeyFileInvalid(f"{file}: {str(error).splitlines()[0]}. Correct the YAML.") from None
    reading = _Reading(file)
    reading.file_of_sources(root)
    if reading.problems:
        raise KeyFileInvalid("\n".join(reading.problems))
    return reading.sources


class _Reading:
    """One pass over the nodes, which finds every problem and goes on."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []
        self.sources: dict[str, Source] = {}

    def file_of_sources(self, root: yaml.Node | None) -> None:
        if root is None:
            self.problems.append(f"{self.file}:1:1: the file is empty. Begin with `sources:`.")
            return
        fields = self._fields(root, ("sources",), "`sources`")
        if fields is None:
            return
        names: set[str] = set()
        for node in self._list(fields, "sources", root, "a source with `name` and `keys`"):
            self._source(node, names)

    def _source(self, node: yaml.Node, names: set[str]) -> None:
        fields = self._fields(node, ("name", "keys", "rate", "burst"), "`name` and `keys`")
        if fields is None:
            return
        name_node = fields.get("name")
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else ""
        if not _NAME.fullmatch(name):
            self._wrong(name_node or node, "a source needs a `name` of up to 63 of a-z, 0-9, `.`, `_`, `-`. Name it.")
        elif name in names:
            self._wrong(name_node or node, f"the source `{name}` stands here a second time. Put its keys together.")
        names.add(name)
        source = Source(name, self._rate(fields))
        for key in self._list(fields, "keys", node, "the hash of a write key"):
            self._key(key, source)

    def _rate(self, fields: Mapping[str, yaml.Node]) -> Rate | None:
        if "rate" not in fields:
            if "burst" in fields:
                self._wrong(fields["burst"], "`burst` stands beside a `rate`. Add one, or remove it.")
            return None
        events = self._number(fields["rate"], "rate", "events per second, more than 0")
        if "burst" not in fields:
            return rate_of(events) if events else None
        burst = self._number(fields["burst"], "burst", "a number of events, at least 1", least=1)
        return rate_of(events, burst) if events and burst else None

    def _number(self, node: yaml.Node, name: str, what: str, least: float = 0) -> float | None:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        number = float(text) if _NUMBER.fullmatch(text) else 0.0
        if number > 0 and number >= least:
            return number
        self._wrong(node, f"`{name}` is {what}. Write a number such as 500.")
        return None

    def _key(self, node: yaml.Node, source: Source) -> None:
        digest = node.value.strip().lower() if isinstance(node, yaml.ScalarNode) else ""
        if not _HASH.fullmatch(digest):
            # What stands there may be a key itself, so it is not repeated.
            self._wrong(node, "this is no hash of a write key (64 hexadecimal digits). `rapport keys new` prints one.")
        elif digest in self.sources:
            self._wrong(
                node, f"this key is listed already, for `{self.sources[digest].name}`. Give each source its own."
            )
        else:
            self.sources[digest] = source

    def _fields(self, node: yaml.Node, known: tuple[str, ...], expected: str) -> dict[str, yaml.Node] | None:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, f"expected {expected} here. Write them with a colon.")
            return None
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in known:
                self._wrong(key, f"unknown field `{name}`. Only {_listed(known)} may stand here.")
            elif name in fields:
                self._wrong(key, f"`{name}` stands here a second time. Keep one.")
            else:
                fields[name] = value
        return fields

    def _list(self, fields: Mapping[str, yaml.Node], name: str, parent: yaml.Node, of: str) -> list[yaml.Node]:
        node = fields.get(name)
        if isinstance(node, yaml.SequenceNode) and node.value:
            return list(node.value)
        self._wrong(node or parent, f"`{name}` needs a list with at least one entry. Add {of}.")
        return []

    def _wrong(self, node: yaml.Node, what: str) -> None:
        self.problems.append(f"{self.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: {what}")


def _listed(names: tuple[str, ...]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}" if first else last
