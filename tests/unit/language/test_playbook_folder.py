"""A playbook's files: which are read, how they are named by a hash, and that the checker holds whatever is in them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.language import SHIPPED, PlaybookInvalid, check, folder, load, playbook_hash, read_folder


def test_the_shipped_playbook_loads_without_a_remark() -> None:
    files = read_folder(SHIPPED)
    assert check(files) == []
    playbook = load(files)
    assert playbook.hash == playbook_hash(files)
    assert playbook.files == files


def test_a_folder_is_read_without_hidden_files_and_follows_links_to_files(tmp_path: Path) -> None:
    # Kubernetes mounts a ConfigMap as links into a hidden folder.
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "rapport.yaml").write_bytes(b"name: a")
    (tmp_path / "rapport.yaml").symlink_to("..data/rapport.yaml")
    (tmp_path / "messages" / "a" / "nb").mkdir(parents=True)
    (tmp_path / "messages" / "a" / "nb" / "subject.txt").write_bytes(b"Hei")
    (tmp_path / ".schema").mkdir()
    (tmp_path / ".schema" / "journey.json").write_bytes(b"{}")
    (tmp_path / "messages" / ".subject.txt.swp").write_bytes(b"")
    assert read_folder(tmp_path) == {"rapport.yaml": b"name: a", "messages/a/nb/subject.txt": b"Hei"}


def test_a_folder_that_is_none_or_holds_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlaybookInvalid, match=r"nowhere:1:1: there is no such folder\. Give the folder"):
        read_folder(tmp_path / "nowhere")
    odd = tmp_path / os.fsdecode(b"caf\xe9.yaml")
    odd.write_bytes(b"")
    with pytest.raises(PlaybookInvalid, match=r"the name 'caf\\udce9\.yaml' has signs in it that are none"):
        read_folder(tmp_path)
    odd.unlink()
    monkeypatch.setattr(folder, "MAX_FILES", 1)
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(PlaybookInvalid, match=r"this folder holds more than 1 files"):
        read_folder(tmp_path)


@pytest.mark.parametrize(("make", "what"), [("mkdir", "a folder"), ("symlink_to", "a link to nothing")])
def test_what_only_looks_like_a_file_is_not_passed_over(tmp_path: Path, make: str, what: str) -> None:
    (tmp_path / "journeys").mkdir()
    getattr(tmp_path / "journeys" / "cart.yaml", make)(*([] if make == "mkdir" else ["nowhere"]))
    with pytest.raises(PlaybookInvalid, match=f"journeys/cart.yaml is {what}, and looks like a file"):
        read_folder(tmp_path)


def test_a_hash_follows_paths_and_bytes_and_not_their_order() -> None:
    one = playbook_hash({"a": b"1", "b": b"2"})
    assert one == playbook_hash({"b": b"2", "a": b"1"})
    assert len({one, playbook_hash({"a": b"12", "b": b""}), playbook_hash({"ab": b"12"}), playbook_hash({})}) == 4


ORIGINALS = read_folder(SHIPPED)
PIECES = [
    "", " ", "\n", "\n  ", "- ", ": ", "{", "}", "[", "]", '"', "'", "#", " #", "&a ", "*a", "!", "|", ">", "@", "%",
    "\t", "\u2028", "\ufeff", "null", "true", "1", "-1.5", "1h", "if", "then", "exit", "wait_for", "event", "steps",
    "x", "é", "{{", "}}", "{%", "%}", "(", ")", ",", "==", "in_segment", 'count("A")', "<mjml>", "</", "\\", "\x00",
    "9" * 40,
]  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(ORIGINALS)), st.randoms(use_true_random=False), st.integers(1, 5))
def test_whatever_is_changed_in_a_playbook_only_problems_come_of_it(
    name: str, chance: random.Random, times: int
) -> None:
    text = ORIGINALS[name].decode()
    for _ in range(times):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 3, 12]))
        text = text[:start] + chance.choice(PIECES) + text[end:]
    files = ORIGINALS | {name: text.encode()}
    problems = check(files)
    assert problems == sorted(problems)
    for problem in problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.message.endswith((".", "!", "?"))
        assert "\n" not in str(problem)
    if not any(problem.severity == "error" for problem in problems):
        load(files)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ORIGINALS)), st.binary(max_size=60))
def test_any_bytes_in_any_file_only_make_problems(name: str, data: bytes) -> None:
    check(ORIGINALS | {name: data})
