"""What one playbook says differently from another."""

from __future__ import annotations

import pytest

from shared.language import SHIPPED, load, read_folder
from shared.language.changes import Changes, Named, compare

FILES = read_folder(SHIPPED)
CART = "journeys/abandoned-cart.yaml"


def edited(*edits: tuple[str, str, str], without: str = "") -> Changes:
    """The shipped playbook beside the same with these edits: file, old text, new text."""
    files = {name: content for name, content in FILES.items() if not without or not name.startswith(without)}
    for name, old, new in edits:
        text = files[name].decode()
        assert old in text
        files[name] = text.replace(old, new, 1).encode()
    return compare(load(FILES), load(files))


def test_a_playbook_beside_itself_has_no_changes() -> None:
    assert edited().summary == ""


def test_the_first_playbook_is_new_as_a_whole() -> None:
    found = compare(None, load(FILES))
    assert "abandoned-cart" in found.journeys.new
    assert not found.journeys.removed


@pytest.mark.parametrize(
    ("edit", "rules", "steps"),
    [
        (("wait: 1h", "wait: 1h\n  - id: more\n    wait: 2d"), (), Named(new=("more",))),
        (("    timeout: 23h", "    timeout: 47h"), (), Named(changed=("came-back",))),
        (("id: came-back", "id: back-again"), (), Named(new=("back-again",), removed=("came-back",))),
        (("again: 14d", "again: 30d"), ("again",), Named()),
        (("within: 7d", "within: 8d"), ("goal",), Named()),
        (("event.total >= 20", "event.total >= 30"), ("trigger",), Named()),
    ],
)
def test_another_version_of_a_journey(edit: tuple[str, str], rules: tuple[str, ...], steps: Named) -> None:
    (change,) = edited((CART, *edit)).changed_journeys
    assert (change.restructured, change.rules, change.steps, change.reordered) == (True, rules, steps, False)


def test_a_step_that_only_leads_elsewhere_is_not_another_one() -> None:
    swap = [
        ("email: cart-old-friend", "email: ?"),
        ("email: cart-last-call", "email: cart-old-friend"),
        ("email: ?", "email: cart-last-call"),
    ]
    (change,) = edited(*((CART, old, new) for old, new in swap)).changed_journeys
    assert (change.steps, change.reordered) == (Named(), True)


def test_what_is_only_written_differently_changes_no_rule() -> None:
    (change,) = edited((CART, "event.total >= 20", "event.total  >=  20")).changed_journeys
    assert (change.rules, change.steps, change.reordered) == ((), Named(), False)


def test_a_title_and_a_status_are_no_other_version() -> None:
    (change,) = edited((CART, "status: live", "status: paused"), (CART, "Bring back", "Fetch")).changed_journeys
    assert (change.restructured, change.status, change.rules) == (False, ("live", "paused"), ("title",))


def test_stages_in_another_order_are_told() -> None:
    found = edited(
        ("stages.yaml", "  delight:", "  retain-1:"),
        ("stages.yaml", "  retain:", "  delight:"),
        ("stages.yaml", "  retain-1:", "  retain:"),
    )
    assert found.stages_reordered
    assert found.stages == Named(changed=("delight", "retain"))


def test_a_pool_of_coupons_is_a_change_like_any_other() -> None:
    journey = "journey: thanks\ntrigger: {event: Order Completed}\nsteps: [{id: code, coupon: ten}]\n"
    before = load({**FILES, "journeys/thanks.yaml": journey.encode(), "coupons/ten.yaml": b"limit: 500"})
    after = load({**before.files, "coupons/ten.yaml": b"limit: 600"})
    assert compare(before, after).coupons == Named(changed=("ten",))
    assert compare(before, after).summary == "coupons: changed ten"
    assert compare(None, before).coupons == Named(new=("ten",))


def test_the_summary_names_what_differs() -> None:
    found = edited(
        ("messages/birthday/subject.txt", "", "Many happy returns! "),
        ("rapport.yaml", "quiet_hours: 21:00-08:00", "quiet_hours: 20:00-08:00"),
        without="journeys/thank-you",
    )
    assert found.summary == "journeys: removed thank-you; messages: changed birthday; rapport.yaml: quiet_hours"
