"""A playbook as a folder of files: which files belong to it, and what each of them is."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from shared.language.fields import LOCALE
from shared.language.problems import PlaybookInvalid, Problem, did_you_mean, listed, nearest, quoted

MAX_FILES = 5_000
MAX_TOTAL_BYTES = 32 * 1024 * 1024

TOP = ("rapport.yaml", "stages.yaml", "segments.yaml", "topics.yaml")
FOLDERS = ("events", "journeys", "messages", "coupons")
LATER = ("campaigns", "surveys", "inserts", "referrals.yaml")
MESSAGE_FILES = ("message.yaml", "subject.txt", "body.mjml", "body.html", "body.txt", "sms.txt", "push.yaml")


def shipped() -> Path:
    """The playbook that comes with Rapport: inside the package where it is installed, else the checkout's folder."""
    here = Path(__file__).resolve().parent
    inside = here / "shipped"
    return inside if inside.is_dir() else here.parents[1] / "playbook"


def read_folder(path: Path | str) -> dict[str, bytes]:
    """The files of a playbook by path relative to it, with `/`. Hidden files and folders are left out.

    Raises PlaybookInvalid where there is no such folder, or where it holds more than a playbook can.
    """
    folder = Path(path)

    def refuse(message: str, remedy: str) -> PlaybookInvalid:
        return PlaybookInvalid([Problem(str(folder), 1, 1, message, remedy)])

    if not folder.is_dir():
        raise refuse("there is no such folder.", "Give the folder that holds rapport.yaml.")
    files: dict[str, bytes] = {}
    total = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (*folders, *names):
            if name.endswith(".yaml") and not name.startswith(".") and not (Path(root) / name).is_file():
                what = "a folder" if name in folders else "a link to nothing"
                where = (Path(root) / name).relative_to(folder).as_posix()
                raise refuse(f"{where} is {what}, and looks like a file.", "Remove or rename it.")
        for name in sorted(names):
            file = Path(root) / name
            if name.startswith(".") or not file.is_file():
                continue
            if not file.relative_to(folder).as_posix().isprintable():
                raise refuse(f"the name {name!a} has signs in it that are none.", "Rename this file.")
            total += file.stat().st_size
            if len(files) >= MAX_FILES or total > MAX_TOTAL_BYTES:
                limit = f"{MAX_FILES:,} files or {MAX_TOTAL_BYTES // 1024 // 1024} MB"
                raise refuse(f"this folder holds more than {limit}.", "Is it a playbook? Keep other files elsewhere.")
            try:
                files[file.relative_to(folder).as_posix()] = file.read_bytes()
            except OSError as error:
                raise refuse(f"{name} cannot be read: {error.strerror}.", "Check its permissions.") from None
    return files


NAMED_BY = 12
"""Characters of a playbook's hash that name it where there is little room, and to people."""


def playbook_hash(files: Mapping[str, bytes]) -> str:
    """The content hash of a playbook: SHA-256 over its files' paths and bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(files):
        for part in (path.encode(), files[path]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


class Sorted(msgspec.Struct):
    """A playbook's files by what they are. `messages` maps message, locale ("" for none) and file name to the path."""

    top: set[str] = set()
    events: list[str] = []
    journeys: list[str] = []
    tests: list[str] = []
    coupons: list[str] = []
    lists: list[str] = []
    """The CSV files of codes."""
    messages: dict[str, dict[str, dict[str, str]]] = {}


def sort_files(paths: Iterable[str], report: Callable[[Problem], None]) -> Sorted:
    """Tells the files apart, and reports those that nothing would read though they look as if something should."""
    found = Sorted()

    def problem(path: str, message: str, remedy: str) -> None:
        report(Problem(path, 1, 1, message, remedy))

    for path in sorted(paths):
        parts = path.split("/")
        head, name = parts[0], parts[-1]
        if any(part.startswith(".") for part in parts):
            continue
        if head in LATER:
            problem(path, f"{head.removesuffix('.yaml')} come later.", "Leave this file out for now.")
        elif name.endswith(".yml"):
            problem(path, "this file is not read: its name ends in .yml.", f"Rename it {name[:-4]}.yaml.")
        elif path in FOLDERS:
            problem(path, "this is a file, and a folder of this name is read.", "Rename it, and make the folder.")
        elif len(parts) == 1:
            if path in TOP:
                found.top.add(path)
            elif name.endswith(".yaml"):
                problem(path, "a playbook has no file of this name.", did_you_mean(name, TOP, f"Known: {listed(TOP)}."))
        elif head == "messages":
            _sort_message(found, path, parts, report)
        elif head in ("events", "journeys") and len(parts) == 2:
            if name.endswith(".test.yaml") and head == "journeys":
                found.tests.append(path)
            elif name.endswith(".yaml"):
                (found.events if head == "events" else found.journeys).append(path)
        elif head == "coupons" and len(parts) == 2 and name.endswith((".yaml", ".csv")):
            (found.coupons if name.endswith(".yaml") else found.lists).append(path)
        elif name.endswith(".yaml"):
            meant = nearest(head, FOLDERS)
            if head in FOLDERS:
                problem(path, f"{head} has no folders in it.", f"Move it to {head}/{name}.")
            elif meant is not None:
                problem(path, f"a playbook has no folder {quoted(head)}.", f'Did you mean "{meant}"?')
    return found


def _sort_message(found: Sorted, path: str, parts: list[str], report: Callable[[Problem], None]) -> None:
    def problem(message: str, remedy: str) -> None:
        report(Problem(path, 1, 1, message, remedy))

    name = parts[-1]
    if len(parts) == 2:
        if name in MESSAGE_FILES or name.endswith((".yaml", ".mjml", ".html")):
            problem("a message is a folder.", "Move this into a folder named like the message.")
        return
    message, locale = parts[1], parts[2] if len(parts) == 4 else ""
    if not re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", message):
        problem(f"{quoted(message)} cannot be a message's name.", "Use small letters, digits and single hyphens.")
        return
    if len(parts) > 4 or (locale and not LOCALE.fullmatch(locale)):
        if name in MESSAGE_FILES:
            problem(f"{quoted('/'.join(parts[2:-1]))} is no locale.", "Name the folder like nb or nb-NO.")
        return
    found.messages.setdefault(message, {})
    if name in MESSAGE_FILES:
        found.messages[message].setdefault(locale, {})[name] = path
    else:
        meant = nearest(name, MESSAGE_FILES)
        if meant is not None:
            problem("nothing reads this file.", f'Did you mean "{meant}"?')
        else:
            remedy = f"A message has {listed(MESSAGE_FILES, 'and')}."
            report(Problem(path, 1, 1, "nothing reads this file.", remedy, "warning"))
