"""The playbook language: `load` a folder's files into a proven playbook, or `check` them for everything wrong.

- Files: `folder` names them, `source` reads YAML with its places, `reading` makes the shapes of it (`playbook_files`,
  `journey_file`, `steps`, `tests_file`; of `fields` and `sections`), `problems` says what does not fit, and editors
  have the shapes by `schema`.
- Expressions: `lexer`, `syntax` and `tree` read them, `analysis` and `calls` say what cannot be right, `expressions`
  compiles what is. `aggregates` count events for them (`amounts`, `aggregate_values`), and `flips`, `rising` and
  `certainty` tell when an answer may change.
- Templates: `bodies` prepares them, `templating` runs them in a sandbox (`template_filters`, `template_values`), and
  `templates` checks them beforehand (`template_names`).
- The whole: `checks` looks at everything together and puts together a `playbook`. Of that `changes`, `flowchart` and
  `places` tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shared.language.catalogue import Catalogue
from shared.language.checks import examine_files
from shared.language.checks.tests import TestedJourney
from shared.language.folder import playbook_hash, read_folder, shipped
from shared.language.places import Places
from shared.language.playbook import Playbook
from shared.language.problems import PlaybookInvalid, Problem
from shared.language.schema import KINDS, schema, write_schemas

__all__ = [
    "KINDS",
    "SHIPPED",
    "PlaybookInvalid",
    "Problem",
    "TestedJourney",
    "WithTests",
    "check",
    "load",
    "load_with_tests",
    "playbook_hash",
    "read_folder",
    "schema",
    "write_schemas",
]

SHIPPED = shipped()
"""The folder of the playbook that comes with Rapport."""


def load(files: Mapping[str, bytes]) -> Playbook:
    """The proven playbook of these files (by path relative to its folder). Raises PlaybookInvalid with all problems."""
    examined = examine_files(files)
    if examined.playbook is None:
        raise PlaybookInvalid(examined.problems)
    return examined.playbook


class WithTests(NamedTuple):
    """A proven playbook with the tests of its journeys; `places` says where its steps are written, and `catalogue` what
    its events hold."""

    playbook: Playbook
    tests: Sequence[TestedJourney]
    places: Places
    catalogue: Catalogue


def load_with_tests(files: Mapping[str, bytes]) -> WithTests:
    """Raises PlaybookInvalid with all problems of the playbook and of its tests."""
    examined = examine_files(files, tests=True)
    if examined.playbook is None:
        raise PlaybookInvalid(examined.problems)
    return WithTests(examined.playbook, examined.tests, Places(files), examined.catalogue)


def check(files: Mapping[str, bytes]) -> list[Problem]:
    """Everything that is wrong with these files, errors and warnings, sorted by place; empty where nothing is."""
    return list(examine_files(files, tests=True).problems)
