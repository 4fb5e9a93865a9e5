"""How long the checker takes: for the shipped playbook, from the command to its exit, and for a playbook of 200
journeys, the shop that has tried everything, and kept it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from bench.measure import Series
from shared.language import SHIPPED, check, read_folder

JOURNEYS = 200
MESSAGE = ("message.yaml", "subject.txt", "body.mjml", "body.txt")


def playbook(journeys: int, with_messages: bool) -> dict[str, bytes]:
    """The shipped playbook with so many variations of its cart journey, and of that one's first mail if wanted."""
    files = read_folder(SHIPPED)
    cart = files["journeys/abandoned-cart.yaml"].decode()
    for number in range(journeys):
        text = cart.replace("journey: abandoned-cart", f"journey: cart-{number}").replace(">= 20", f">= {number}")
        if with_messages:
            text = text.replace("cart-reminder\n", f"mail-{number}\n").replace("cart-reminder}", f"mail-{number}}}")
            for file in MESSAGE:
                written = files[f"messages/cart-reminder/{file}"].decode()
                files[f"messages/mail-{number}/{file}"] = _varied(written, number).encode()
        files[f"journeys/cart-{number}.yaml"] = text.encode()
    return files


def _varied(text: str, number: int) -> str:
    """A mail with words of its own, and a sentence that only some get to read."""
    own = (
        f"{{% if traits.visits > {number} %}}You have been here {{{{ traits.visits - {number} }}}} times.{{% endif %}}"
    )
    return text.replace("still in your cart", f"still in your cart, number {number}. {own}").replace(
        "Ask us", f"Ask {number}"
    )


def measure(folder: Path) -> dict[str, float]:
    """Seconds for one check, in a process that has checked nothing before."""
    figures = {}
    for name, with_messages in (("all with the same mails", False), ("each with its own mail", True)):
        files = playbook(JOURNEYS, with_messages)
        begun = perf_counter()
        problems = check(files)
        figures[name] = perf_counter() - begun
        if problems:
            raise RuntimeError(f"the playbook that was made has problems: {problems[0]}")
    return figures


def start(folder: Path) -> float:
    """Seconds from the command to its exit, with Python's bytecode kept, as it is where Rapport was installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-X", f"pycache_prefix={folder}", "-m", "services", "playbook", "check", str(SHIPPED)]
    begun = perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return perf_counter() - begun


def prepare(folder: Path) -> None:
    """The first run writes the bytecode."""
    start(folder)


SERIES = (
    Series("playbook check, 200 journeys", "s", run=measure, goal=1, more_is_better=False, rounds=3),
    Series("playbook check, the command", "s", run=start, goal=0.5, more_is_better=False, prepare=prepare),
)
