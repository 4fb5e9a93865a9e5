"""Pools of coupons: their files, the steps that issue from them, and the mails that carry the codes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import timedelta

from shared.language.checks.book import Book, ReadJourney, some_of
from shared.language.graph import Placed, branches
from shared.language.playbook_files import CouponFile
from shared.language.problems import Problem, did_you_mean, nearest, quoted
from shared.language.reading import read
from shared.language.sections import Hole
from shared.language.source import Document, Path, decode
from shared.language.steps import CouponStep, ExitStep, SendStep, Step, WaitBetween, WaitForStep, WaitStep, WaitUntil

DAY = timedelta(days=1)
MAX_CODE = 64


def read_coupons(book: Book) -> None:
    used: set[str] = set()
    for file, name in zip(book.sorted.coupons, book.coupon_names, strict=True):
        document = book.document(file)
        shape = None if document is None else read(document, CouponFile, book.report)
        if document is None or shape is None:
            continue
        book.coupons[name] = shape
        if shape.url is not None:
            check_encrypted(book, document, ("url",), shape.url)
        wrong = book.wrong_at(document, ("codes",))
        if isinstance(shape.codes, list):
            book.codes[name] = tuple(dict.fromkeys(shape.codes))
            if len(book.codes[name]) < len(shape.codes):
                wrong("a code stands here twice.", "Each can be issued once: remove one of the two.")
        elif shape.codes is not None:
            path = f"coupons/{shape.codes}"
            if path not in book.sorted.lists:
                lists = [one.removeprefix("coupons/") for one in book.sorted.lists]
                otherwise = (
                    f"Put {shape.codes} beside this file." if shape.codes.endswith(".csv") else "Name a CSV file."
                )
                wrong(f"there is no file {path}.", did_you_mean(shape.codes, lists, otherwise))
            else:
                used.add(path)
                book.codes[name] = read_codes(book, path)
    for path in book.sorted.lists:
        if path not in used:
            book.report(
                Problem(path, 1, 1, "no pool takes its codes from this file.", "Name it under codes.", "warning")
            )


def check_encrypted(book: Book, document: Document, path: Path, url: str) -> None:
    """An address that is called, over a road on which nobody else can read."""
    if url.startswith("http:"):
        message = "this call goes out unencrypted: whoever is on the way can read it."
        book.wrong_at(document, path)(message, "Begin it with https://.", True)


def read_codes(book: Book, path: str) -> tuple[str, ...]:
    """The codes of a CSV file: its column `code`, else its first one."""
    text = decode(path, book.files[path], book.report)
    found: dict[str, int] = {}
    column = 0
    for line, row in enumerate(csv.reader((text or "").splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if line == 1 and "code" in (names := [cell.lower() for cell in cells]):
            column = names.index("code")
            continue
        code = cells[column] if column < len(cells) else ""
        if not code:
            continue
        if not (code.isascii() and code.isprintable() and " " not in code and len(code) <= MAX_CODE):
            message = f"{quoted(code[:40])} cannot be typed as a code."
            book.report(Problem(path, line, 1, message, "Use letters, digits and hyphens, 64 at most."))
        elif code in found:
            message = f"{quoted(code)} stands in line {found[code]} already."
            book.report(Problem(path, line, 1, message, "Each can be issued once: remove one of the two."))
        else:
            found[code] = line
    if text is not None and not found:
        book.report(Problem(path, 1, 1, "there is no code in this file.", "Write one code on each line."))
    return tuple(found)


def check_coupon(book: Book, journey: ReadJourney, placed: Placed, step: CouponStep) -> None:
    """The pool is there."""
    wrong = book.wrong_at(journey.document, (*placed.path, "coupon"))
    if step.coupon not in book.coupon_names:
        otherwise = f"Add coupons/{step.coupon}.yaml."
        if book.coupon_names and not nearest(step.coupon, book.coupon_names):
            otherwise = f"Add coupons/{step.coupon}.yaml, or use {some_of(book.coupon_names)}."
        wrong(f"there is no coupon {quoted(step.coupon)}.", did_you_mean(step.coupon, book.coupon_names, otherwise))


def _topic(journey: ReadJourney, mail: SendStep) -> str | None:
    return mail.topic if mail.topic is not None else getattr(journey.shape.defaults, "topic", None)


def _carries(journey: ReadJourney, mail: Placed, coupon: str) -> Path | None:
    """Where a mail is given what a coupon step left behind."""
    assert isinstance(mail.step, SendStep)
    for name in mail.step.with_:
        path = (*mail.path, "with", name)
        expression = journey.expression(path)
        if expression is not None and any(found[:2] == ("steps", coupon) for found in expression.names):
            return path
    return None


def check_carriers(book: Book, journey: ReadJourney) -> None:
    """The mails that carry codes: none is advertising in disguise, and none leaves when its code has expired."""
    for placed in journey.layout.placed:
        if not isinstance(placed.step, CouponStep):
            continue
        wrong = book.wrong_at(journey.document, (*placed.path, "coupon"))
        for mail, sent in journey.layout.sends():
            entry = book.topics.get(topic) if (topic := _topic(journey, sent)) is not None else None
            if entry is not None and entry.kind == "transactional" and _carries(journey, mail, placed.id):
                message = (
                    "a coupon in a transactional message makes it advertising, and this topic ignores unsubscribes."
                )
                wrong(message, "Use a promotional topic, or drop the coupon.")
                break
        pool = book.coupons.get(placed.step.coupon)
        if pool is None or pool.expires is None:
            continue
        after: dict[str, timedelta] = {}
        _pass(journey, ("steps",), journey.shape.steps, None, placed.id, after)
        for mail, _ in journey.layout.sends():
            passed, path = after.get(mail.id), _carries(journey, mail, placed.id)
            if path is not None and passed is not None and passed >= pool.expires:
                unit, name = (DAY, "days") if passed >= 2 * DAY else (timedelta(hours=1), "hours")
                lives = pool.expires / unit
                message = f"this mail leaves {passed // unit} {name} or more after the coupon, which lives {lives:g}."
                enough = 7 * (passed // timedelta(weeks=1) + 1)
                remedy = f"Set expires: {enough}d in coupons/{placed.step.coupon}.yaml, or wait less."
                book.wrong_at(journey.document, path)(message, remedy)


def _pass(
    journey: ReadJourney,
    path: Path,
    steps: Sequence[Step],
    passed: timedelta | None,
    coupon: str,
    after: dict[str, timedelta],
) -> timedelta | None:
    """The shortest time that can have passed since a coupon was issued, noted for each step behind it; what it is at
    the end of these steps, None where it has not been issued or nobody gets there."""
    for position, step in enumerate(steps):
        here = (*path, position)
        if isinstance(step, Hole):
            continue
        placed = journey.layout.by_path[here]
        if placed.id == coupon:
            passed = timedelta(0)
        elif passed is not None:
            after[placed.id] = passed
        if isinstance(step, ExitStep):
            return None
        if isinstance(step, WaitStep) and passed is not None:
            passed += _shortest(step)
        inner = branches(step, here)
        if not inner:
            continue
        ends = []
        for below, within in inner:
            begun = passed
            if passed is not None and isinstance(step, WaitForStep) and below[-1] == "on_timeout":
                begun = passed + step.timeout
            ends.append(_pass(journey, below, within, begun, coupon, after))
        passed = min((end for end in ends if end is not None), default=None)
    return passed


def _shortest(step: WaitStep) -> timedelta:
    wait = step.wait
    if isinstance(wait, WaitBetween):
        return wait.between[0]
    if isinstance(wait, WaitUntil):
        return wait.for_ or timedelta(0)
    return wait


def check_coupons_used(book: Book) -> None:
    issued = {
        placed.step.coupon
        for journey in book.journeys.values()
        for placed in journey.layout.placed
        if isinstance(placed.step, CouponStep)
    }
    for file, name in zip(book.sorted.coupons, book.coupon_names, strict=True):
        if name in book.coupons and name not in issued and len(book.journeys) == len(book.journey_names):
            message, remedy = "no journey issues these coupons.", f"Add a step: coupon: {name}, or remove this file."
            book.report(Problem(file, 1, 1, message, remedy, "warning"))
