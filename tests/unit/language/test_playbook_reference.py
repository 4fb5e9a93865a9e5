"""The reference page keeps its word: every example on it loads."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent

import pytest
from sample_playbook import said_of

PAGE = (Path(__file__).parents[3] / "docs" / "playbook-reference.md").read_text()
BLOCKS = re.findall(r"^```(yaml|html)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES: dict[str, list[str]] = {}
for language, block in BLOCKS:
    if language == "yaml":
        FILES.setdefault(block.splitlines()[0].removeprefix("# "), []).append(block)
STEPS = FILES.pop("steps")
(BODY,) = [block for language, block in BLOCKS if language == "html"]
STOP = '<a href="{{ unsubscribe_url }}">Stop</a>'


def page() -> dict[str, bytes]:
    """The whole page as one playbook, with a body for each message that it sends. Of two blocks for one file (segments)
    the last stays."""
    files = {name: blocks[-1].encode() for name, blocks in FILES.items()}
    text = "\n".join(block for blocks in [*FILES.values(), STEPS] for block in blocks)
    for message in set(re.findall(r"email: ([a-z-]+)$", text, re.MULTILINE)):
        body = BODY if message == "cart-reminder" else STOP
        if message == "review":
            body += "{{ name }}"
        if message == "cart-vip":
            body += "{{ orders }} {{ greeting | default('') }} {{ code | default('') }} {{ until | default('') }}"
        files[f"messages/{message}/subject.txt"] = b"Hello"
        files[f"messages/{message}/body.html"] = body.encode()
    files["messages/parcel/sms.txt"] = b"Your parcel is on its way: {{ urls.shop }}"
    return files


def test_every_yaml_block_names_its_file() -> None:
    assert all(re.fullmatch(r"[a-z/-]+\.yaml", name) for name in FILES)
    assert len(STEPS) >= 4


def test_the_page_is_a_playbook_without_a_remark() -> None:
    assert said_of(page()) == []


@pytest.mark.parametrize("number", range(len(FILES["segments.yaml"])))
def test_each_example_of_segments_loads(number: int) -> None:
    files = page() | {"segments.yaml": FILES["segments.yaml"][number].encode()}
    assert [said for said in said_of(files) if said.startswith("segments.yaml")] == []


@pytest.mark.parametrize("steps", STEPS)
def test_each_example_of_steps_loads(steps: str) -> None:
    head = (
        "journey: example\n"
        "trigger: {event: Order Completed, key: event.order_id}\n"
        "defaults: {topic: cart-reminders}\n"
        "steps:\n"
    )
    described = {
        "events/answered.yaml": b"event: Survey Answered\nproperties: {survey: {}, order_id: {}, score: {}}",
        "events/solved.yaml": b"event: Complaint Solved",
        "events/interest.yaml": b"event: Interest Shown\nproperties: {visits: {type: number}}",
    }
    files = page() | described | {"journeys/example.yaml": (head + indent(steps, "  ")).encode()}
    # The mails' templates are about a cart, and this journey is not.
    assert [said for said in said_of(files) if said.startswith("journeys/example.yaml")] == []
