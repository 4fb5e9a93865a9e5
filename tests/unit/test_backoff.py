"""How long who failed waits before trying again."""

from __future__ import annotations

from shared.backoff import back_off


def test_each_failure_doubles_the_wait_up_to_the_most() -> None:
    for failures, whole in ((1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (10_000, 5.0)):
        assert all(whole / 2 <= back_off(failures) <= whole for _ in range(100))
    assert all(1.0 <= back_off(9, most=2.0) <= 2.0 for _ in range(100))
