"""A simulation in several processes: what they come to, and what becomes of it when one is lost."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from services.backtest.processes import Worker, said_by, simulate_shared, started
from shared.errors import RapportError

_JOURNEY = """
journey: cart
title: A forgotten cart
trigger: {event: Cart Updated, key: event.cart_id}
defaults: {topic: reminders}
steps:
  - id: code
    coupon: ten
  - wait: 1h
  - email: reminder
    with: {code: steps.code.code}
"""


def playbook(codes: int) -> dict[str, bytes]:
    files = {
        "rapport.yaml": """
name: Lamps
sender: shop@lamps.example
postal_address: Light Street 1
timezone: UTC
carts: sent
""",
        "stages.yaml": 'stages:\n  attract: "true"\n',
        "segments.yaml": "segments: {}\n",
        "topics.yaml": "topics:\n  reminders: {title: Reminders, kind: promotional, default: opt_out}\n",
        "journeys/cart.yaml": _JOURNEY,
        "coupons/ten.yaml": f"title: Ten\nprefix: TEN-\nlength: 8\nlimit: {codes}\n",
        "messages/reminder/message.yaml": "title: reminder\nvariables: [code]\n",
        "messages/reminder/subject.txt": "Hello {{ code }}",
        "messages/reminder/body.html": '<a href="{{ unsubscribe_url }}">Stop</a>',
    }
    return {name: text.encode() for name, text in files.items()}


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Twenty customers, each with a cart; and a line that is no event."""
    path = tmp_path / "history.ndjson"
    lines = ["nonsense"]
    for number in range(20):
        whose = {"userId": f"customer-{number}", "timestamp": f"2026-03-02T12:{number:02}:00Z"}
        lines.append(json.dumps({**whose, "type": "identify", "traits": {"email": f"{number}@example.com"}}))
        cart = {"event": "Cart Updated", "properties": {"cart_id": "c", "total": 50}}
        lines.append(json.dumps({**whose, "type": "track", **cart}))
    lines.append(json.dumps({"userId": "last", "type": "track", "event": "Seen", "timestamp": "2026-03-03T12:00:00Z"}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("codes", [20, 15])
def test_two_processes_find_what_one_does_even_where_coupons_run_out(history: Path, codes: int) -> None:
    playbooks, sources = [playbook(codes), playbook(codes + 5)], [(history, None)]
    one, two = (simulate_shared(playbooks, sources, jobs, lambda read: None) for jobs in (1, 2))
    assert one.comparison is not None
    assert msgspec.json.encode(two.comparison) == msgspec.json.encode(one.comparison)
    assert one.reports[0].coupons == {"ten": codes}
    assert one.reports[0].sent == 20
    assert [(refused.count, refused.places) for refused in two.reports[0].refused] == [(1, [f"{history}:1"])]


def _listen_for_ever(workers: list[Worker]) -> None:
    while True:
        list(said_by(workers, {}))


def test_a_process_that_is_killed_is_told_of_and_none_is_left(history: Path) -> None:
    with started(2, [playbook(20)], [(history, None)]) as workers:
        workers[1].process.kill()
        with pytest.raises(RapportError, match=r"was killed \(SIGKILL\).*--jobs 1"):
            _listen_for_ever(workers)
    assert [worker.process.exitcode is None for worker in workers] == [False, False]


def test_a_process_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    with started(1, [playbook(20)], [(tmp_path / "gone.ndjson", None)]) as workers:
        with pytest.raises(RapportError, match=r"gone.ndjson is no file"):
            list(said_by(workers, {}))
