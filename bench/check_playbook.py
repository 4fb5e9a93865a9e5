"""How long the checker takes for a playbook of many journeys: `python bench/check_playbook.py [JOURNEYS]`."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.language import SHIPPED, check, read_folder

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
                note = f"<!-- {number} -->".encode() if file == "body.mjml" else b""
                files[f"messages/mail-{number}/{file}"] = files[f"messages/cart-reminder/{file}"] + note
        files[f"journeys/cart-{number}.yaml"] = text.encode()
    return files


def main() -> None:
    journeys = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for with_messages in (False, True):
        files = playbook(journeys, with_messages)
        for time in ("first", "again"):
            begun = perf_counter()
            problems = check(files)
            took = perf_counter() - begun
            mails = "each with its own mail" if with_messages else "all with the same mails"
            sys.stdout.write(f"{journeys} journeys, {mails}, {time}: {took:.2f} s, {len(problems)} problems\n")


if __name__ == "__main__":
    main()
