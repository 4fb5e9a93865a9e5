"""The language, case by case: a small playbook, a history, and the story that must come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from language_story import Loader, Story

CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in sorted((Path(__file__).parent / "language").glob("*.yaml"))
    for case in yaml.load(file.read_text(), Loader)
]


@pytest.mark.parametrize("case", CASES)
def test_language(case: dict[str, Any]) -> None:
    story = Story(case)
    expected = story.expected()
    assert story.as_expected(expected) == expected
