"""Memory that is free, under control groups of either version."""

import pytest

from lambda_seq.tasks.memory import free
from lambda_seq.tasks.memory.free import _rooms_of_groups, available_memory


def group(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.fixture
def groups(tmp_path):
    """Runs on a tree of control groups, with the lines of /proc/self/cgroup."""
    own = tmp_path / "own"

    def rooms(lines):
        own.write_text(lines)
        return list(_rooms_of_groups(tmp_path / "cgroup", own))

    rooms.root = tmp_path / "cgroup"
    return rooms


def test_version_2_and_the_groups_above(groups):
    group(groups.root / "a" / "b", {"memory.max": "max\n", "memory.current": "10\n"})
    group(
        groups.root / "a",
        {"memory.max": "1000\n", "memory.current": "600\n", "memory.stat": "anon 1\ninactive_file 50\n"},
    )
    assert groups("0::/a/b\n") == [450]


def test_version_1(groups):
    files = {
        "memory.limit_in_bytes": "1000",
        "memory.usage_in_bytes": "900",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 300",
    }
    group(groups.root / "memory" / "job", files)
    assert groups("9:cpu,memory:/job\n8:pids:/\n0::/\n") == [400]


def test_a_container_sees_its_own_group_as_the_top(groups):
    group(groups.root, {"memory.max": "1000", "memory.current": "1"})
    assert groups("0::/docker/0123\n") == [999]


def test_none(groups):
    assert groups("0::/\n") == []
    assert list(_rooms_of_groups(groups.root, groups.root / "nowhere")) == []


def test_the_least_counts(monkeypatch):
    machine = available_memory()
    assert 2**20 < machine < 2**50
    monkeypatch.setattr(free, "_rooms_of_groups", lambda: [machine // 2, 5])
    assert available_memory() == 5
    monkeypatch.setattr(free, "_rooms_of_groups", lambda: [-5])
    assert available_memory() == 0


def test_a_limit_of_the_shell(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**60, 2**60))
    assert free._room_of_shell() < 2**60
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert free._room_of_shell() is None
