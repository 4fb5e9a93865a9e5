"""A marketer's day: `rapport playbook init | check | apply`, and saving files while `rapport up` watches them."""

from __future__ import annotations

import json
from pathlib import Path

from house import HOUR_A_SECOND, House, a_folder, a_house, first_order, rapport
from patience import until


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has changed: there is no {old!r}"
    file.write_text(text.replace(old, new))


async def test_a_playbook_is_made_checked_and_corrected() -> None:
    with a_folder() as folder:
        mine = folder / "mine"
        made = await rapport("playbook", "init", mine)
        assert made.code == 0
        assert f"rapport playbook check {mine}" in made.output
        assert (mine / ".schema" / "journey.json").exists()
        again = await rapport("playbook", "init", mine)
        assert (again.code, again.output) == (1, f"{mine} is not an empty folder. Choose a new one.\n")
        assert await rapport("playbook", "check", mine) == (0, "no problems\n")
        edit(mine / "journeys" / "thank-you.yaml", "email: thank-you-first", "emial: thank-you-first")
        edit(mine / "stages.yaml", "attract: true", "attract: tru")
        wrong = await rapport("playbook", "check", mine)
        assert wrong.code == 1
        assert 'Did you mean "email"?' in wrong.output
        places = [line.split(": ")[0] for line in wrong.output.splitlines()]
        assert any(place.startswith("journeys/thank-you.yaml:") for place in places)
        assert any(place.startswith("stages.yaml:") for place in places)
        told = await rapport("playbook", "check", mine, "--format", "json")
        assert {problem["file"] for problem in json.loads(told.output)} == {"journeys/thank-you.yaml", "stages.yaml"}


async def test_what_is_saved_and_what_is_applied_comes_into_force_and_what_is_bad_does_not() -> None:
    async with a_house(speed=2 * HOUR_A_SECOND) as house:
        await house.start()
        subject = house.playbook / "messages" / "thank-you-first" / "subject.txt"
        journey = house.playbook / "journeys" / "thank-you.yaml"
        # A mistake is told with its place, and the playbook before it stays in force.
        edit(journey, "email: thank-you-first", "emial: thank-you-first")
        await until(lambda: says(house, r"Did you mean \"email\"?"), what="the complaint")
        assert "journeys/thank-you.yaml:" in house.process.output
        await house.post(*first_order("ann"))
        (mail,) = await house.mailed("ann")
        assert mail["Subject"].startswith("Thank you, Ann")
        # Reworded and corrected, in this order: what is right at any moment may be applied at that moment.
        subject.write_text("A thousand thanks\n")
        edit(journey, "emial: thank-you-first", "email: thank-you-first")
        await until(lambda: says(house, "playbook applied"), what="the new playbook")
        await house.post(*first_order("bob"))
        (mail,) = await house.mailed("bob")
        assert mail["Subject"] == "A thousand thanks"
        # By a command, from another folder.
        with a_folder() as folder:
            mine = folder / "mine"
            await rapport("playbook", "init", mine)
            (mine / "messages" / "thank-you-first" / "subject.txt").write_text("Thanks by command\n")
            (mine / "rapport.yaml").write_bytes((house.playbook / "rapport.yaml").read_bytes())
            edit(mine / "topics.yaml", "thank-you:", "thanks:")
            bad = await rapport("playbook", "apply", mine, "--data", house.data)
            assert bad.code == 1
            assert "journeys/thank-you.yaml:" in bad.output
            edit(mine / "topics.yaml", "thanks:", "thank-you:")
            planned = await rapport("playbook", "plan", mine, "--data", house.data, "--exit-code")
            assert planned.code == 2, planned.output
            assert "~ thank-you-first  changed. Those inside get the new wording, too." in planned.output
            applied = await rapport("playbook", "apply", mine, "--data", house.data)
            assert applied.code == 0, applied.output
            await house.post(*first_order("cat"))
            (mail,) = await house.mailed("cat")
            assert mail["Subject"] == "Thanks by command"
            told = await rapport("playbook", "plan", mine, "--data", house.data, "--format", "markdown", "--exit-code")
            assert (told.code, told.output.splitlines()[-1]) == (0, "**Nothing would change.**")
            # And back again, by what the history says.
            history = await rapport("playbook", "history", "--data", house.data, "--format", "json")
            now, before, *_ = json.loads(history.output)
            assert now["summary"] == "messages: changed thank-you-first"
            assert before["by"].startswith("rapport up")
            back = ("playbook", "apply", "--to", before["playbook"][:8], "--by", "a test", "--data", house.data)
            assert (await rapport(*back)).code == 0
            await house.post(*first_order("dot"))
            (mail,) = await house.mailed("dot")
            assert mail["Subject"] == "A thousand thanks"
            assert "a test" in (await rapport("playbook", "history", "--data", house.data)).output
            unknown = await rapport("playbook", "apply", "--to", "zz", "--data", house.data)
            assert "no playbook begins with 'zz'" in unknown.output


async def says(house: House, words: str) -> bool:
    return words in house.process.output
