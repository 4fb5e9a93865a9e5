"""Settings: what is documented is what there is, and what is mistyped is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.serving import SERVICES
from shared.errors import RapportError
from shared.settings import PREFIX, Settings, refuse_unknown

KINDS = (Settings, *(kind for _, kind in SERVICES.values()))


def known() -> set[str]:
    named = {"database_url": "DATABASE_URL", "kafka_bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS"}
    return {named.get(field, PREFIX + field.upper()) for kind in KINDS for field in kind.model_fields}


def test_every_setting_is_documented_and_nothing_else() -> None:
    text = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE))
    for_tests = {"RAPPORT_FAULT", "RAPPORT_FAULT_PROOF"}
    assert table == known() - for_tests
    assert all(f"`{name}`" in text for name in for_tests)


def test_a_mistyped_variable_is_refused_with_what_was_meant() -> None:
    with pytest.raises(RapportError, match=r"RAPPORT_BATCH_RECORD is not known\. Did you mean RAPPORT_BATCH_RECORDS\?"):
        refuse_unknown(KINDS, ["RAPPORT_BATCH_RECORD", "PATH"])


def test_a_bad_value_is_refused_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_PARTITIONS", "many")
    with pytest.raises(RapportError, match="RAPPORT_PARTITIONS: Input should be a valid integer"):
        Settings.read()


@pytest.mark.parametrize(("variable", "known"), [("LOG_LEVEL", "'debug', 'info'"), ("LOG_FORMAT", "'auto', 'json'")])
def test_a_word_that_there_is_not_is_refused_with_those_that_there_are(
    variable: str, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + variable, "loud")
    with pytest.raises(RapportError, match=f"RAPPORT_{variable}: Input should be {known}"):
        Settings.read()


def test_a_level_may_be_written_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_LOG_LEVEL", "INFO")
    assert Settings.read().log_level == "info"
