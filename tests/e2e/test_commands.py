"""An afternoon with the other commands: one running shop, and what each of them says about it."""

from __future__ import annotations

import asyncio
import json

from house import HOUR_A_SECOND, House, Said, a_house, identify, ordered
from patience import until
from typer.testing import CliRunner

from services.__main__ import app

ORDERS = """\
journey: orders
trigger: {event: Order Completed, key: event.order_id}
defaults: {topic: thank-you}
steps:
  - {id: code, coupon: ten}
  - {id: call, task: {title: '"Call " + traits.first_name'}}
  - id: called
    wait_for: {event: Task Done, where: event.key == key}
    timeout: 700d
  - exit: called
"""
BUYERS = """\
journey: buyers
trigger: {stage: retain}
defaults: {topic: thank-you}
steps: [{wait: 500d}]
"""


async def rapport(*arguments: object) -> Said:
    """A command, in this process: most of its time would go into its start."""
    told = await asyncio.to_thread(CliRunner().invoke, app, [str(one) for one in arguments])
    return Said(told.exit_code, told.output)


async def test_what_a_newcomer_types_is_answered() -> None:
    async with a_house(speed=HOUR_A_SECOND) as house:
        for name, text in (("orders", ORDERS), ("buyers", BUYERS)):
            (house.playbook / "journeys" / f"{name}.yaml").write_text(text)
        (house.playbook / "coupons").mkdir()
        (house.playbook / "coupons" / "ten.yaml").write_text("codes: [TEN-A, TEN-B]\n")
        await house.start()
        await house.post(*(event for user in ("ann", "bob") for event in (identify(user), ordered(user, f"o-{user}"))))

        async def ask(*arguments: object) -> Said:
            return await rapport(*arguments, "--data", house.data)

        async def given() -> bool:
            return (await ask("coupons", "list")).output.count("2") >= 1 and len(await tasks(house)) == 2

        await until(given, what="two tasks")
        await looked_at(house)
        (task, *_) = await tasks(house)
        assert (await ask("tasks", "done", task["id"][:8], "--note", "glad")).output.startswith("done: Call ")
        again = await ask("tasks", "done", task["id"][:8])
        assert (again.code, "was done before" in again.output) == (1, True)

        paused = [await ask("journeys", word, "buyers") for word in ("pause", "pause", "resume")]
        assert [said.code for said in paused] == [0, 0, 0]
        assert "paused by hand already" in paused[1].output
        (house.playbook / "journeys" / "buyers.yaml").write_text(BUYERS.replace("500d", "{between: [600d, 601d]}"))
        await until(lambda: moved(house), what="the plan of a move")
        backfill = await ask("journeys", "backfill", "buyers", "--rate", "500/h", "--dry-run")
        assert "2 of 2 customers are where buyers lets others in; 2 are inside it already" in backfill.output

        history = house.folder / "history.ndjson"
        assert (await rapport("events", "export", history, "--data", house.data)).output.endswith(f"are in {history}\n")
        told = await rapport("simulate", house.playbook, "--events", history, "--format", "json")
        report = json.loads(told.output)
        assert (report["customers"], report["coupons"]) == (2, {"ten": 2})


async def looked_at(house: House) -> None:
    """What only looks."""
    at = ("--data", str(house.data))
    asked: dict[tuple[str, ...], tuple[int, str]] = {
        ("coupons", "export", "ten", *at): (0, "code,customer,journey,issued_at,expires_at"),
        ("coupons", "export", "tenn", *at): (1, "there is no pool 'tenn'"),
        ("journeys", "list", *at): (0, "orders"),
        ("journeys", "show", "orders", *at): (0, "listening"),
        ("journeys", "show", "order", *at): (1, 'Did you mean "orders"?'),
        ("journeys", "backfill", "buyers", "--rate", "fast", *at): (1, "'fast' is no rate. Write how many"),
        ("why", "ann", "orders", *at): (0, "gives somebody the task"),
        ("why", "nobody", *at): (1, "no customer has the key 'nobody'"),
        ("playbook", "show", "orders", str(house.playbook)): (0, "coupon"),
        ("playbook", "preview", "thank-you-first", str(house.playbook)): (0, "Subject: "),
        ("simulate", str(house.playbook), "--events", "none.ndjson"): (1, "none.ndjson is no file."),
    }
    for arguments, (code, words) in asked.items():
        answer = await rapport(*arguments)
        assert (answer.code, words in answer.output) == (code, True), (arguments, answer.output)


async def tasks(house: House) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        (await rapport("tasks", "list", "--format", "json", "--data", house.data)).output
    )
    return found


async def moved(house: House) -> bool:
    said = await rapport("journeys", "move", "buyers", "--dry-run", "--data", str(house.data))
    return "2 inside older versions" in said.output
