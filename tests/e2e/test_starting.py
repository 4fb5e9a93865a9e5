"""Starting `rapport up` the wrong way says what is wrong and what to do, and changes nothing."""

from __future__ import annotations

from pathlib import Path

from house import rapport


async def test_a_bad_playbook_at_the_first_start_is_told_with_every_place(folder: Path, playbook: Path) -> None:
    (playbook / "stages.yaml").write_text("stages:\n  delight: cuont('Order Completed') > 1\n  attract: true\n")
    journey = playbook / "journeys" / "thank-you.yaml"
    journey.write_text(journey.read_text().replace("email: thank-you-first", "email: thank-you-frist"))
    said = await rapport("up", "--data", folder / "data", "--port", "0", "--playbook", playbook)
    assert said.code == 1
    assert "stages.yaml:2:" in said.output
    assert 'Did you mean "thank-you-first"?' in said.output


async def test_a_setting_that_nobody_knows_is_no_silent_typo(folder: Path) -> None:
    said = await rapport("up", "--data", folder / "data", RAPPORT_CLOCK_SPED="2")
    assert said == (1, "settings: RAPPORT_CLOCK_SPED is not known. Did you mean RAPPORT_CLOCK_SPEED? Remove it or "
                       "correct its name.\n")  # fmt: skip


async def test_a_wrong_mail_server_is_told_before_anything_is_made(folder: Path) -> None:
    said = await rapport("up", "--data", folder / "data", "--smtp", "relay.example:587")
    assert said == (1, "settings: RAPPORT_MAILER_SMTP_URL: relay.example:587: not the address of a mail server. Write "
                       "smtp://host:587.\n")  # fmt: skip
    assert not (folder / "data").exists()


async def test_a_command_that_visits_says_where_to_look_when_nobody_is_home(folder: Path) -> None:
    said = await rapport("dead-letters", "list", "--data", folder / "nobody")
    assert said.code == 1
    assert said.output.startswith("no `rapport up` runs over ")
