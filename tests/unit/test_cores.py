"""What a control group allows, from the files that the kernel shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.cores import cores


@pytest.fixture(autouse=True)
def machine_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def _shown(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_machine_without_control_groups_has_its_processors(tmp_path: Path) -> None:
    assert cores(tmp_path) == 8


@pytest.mark.parametrize(
    ("said", "allowed"), [("max 100000", 8), ("100000 100000", 1), ("150000 100000", 2), ("50000 100000", 1)]
)
def test_container_has_what_its_quota_allows(tmp_path: Path, said: str, allowed: int) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{said}\n"}
    assert cores(_shown(tmp_path, files)) == allowed


def test_quota_above_what_the_machine_has_makes_no_more_of_it(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1600000 100000\n"}
    assert cores(_shown(tmp_path, files)) == 8


def test_narrowest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/shop.slice/rapport.service\n",
        "sys/fs/cgroup/shop.slice/cpu.max": "200000 100000\n",
        "sys/fs/cgroup/shop.slice/rapport.service/cpu.max": "400000 100000\n",
    }
    assert cores(_shown(tmp_path, files)) == 2


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "allowed"), [("-1", 8), ("100000", 1), ("300000", 3)])
def test_older_kernels_container_has_what_its_quota_allows(
    tmp_path: Path, mount: str, quota: str, allowed: int
) -> None:
    """There /proc names the group as it is called outside, and the container sees its own at the top."""
    files = {
        "proc/self/cgroup": "5:memory:/docker/4f1c\n4:cpu,cpuacct:/docker/4f1c\n",
        f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": "100000\n",
    }
    assert cores(_shown(tmp_path, files)) == allowed
