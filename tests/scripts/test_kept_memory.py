import json
import platform

import kept_memory
import pytest


def record(network, kept, turn, seconds, size, status="measured"):
    key = {"network": network, "kept": kept, "round": turn, "steps": 8}
    return {"key": key, "status": status, "message": "", "seconds": seconds, "bytes": size}


def test_ratios_are_of_the_same_round():
    name = next(iter(kept_memory.NETWORKS))
    rounds = [(1.0, 0.5), (2.0, 1.4), (1.0, 0.6)]
    records = [
        record(name, kept, turn, both[kept], 2**30 * (1 + kept)) for turn, both in enumerate(rounds) for kept in (0, 1)
    ]
    records += [record(name, False, 3, 9.0, 1), record(name, True, 3, 9.0, 1, "failed")]
    (row,) = kept_memory.table(records).rows
    assert row == (name, "1 s", "600 ms", "0.60 ± 0.10", "1 GiB", "2 GiB", "2.00")


def test_nothing_measured_is_no_row():
    assert kept_memory.table([record(next(iter(kept_memory.NETWORKS)), True, 0, 1.0, 1)]).rows == ()


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_it_measures(tmp_path):
    name = "784 pixels, batch 64"
    assert kept_memory.main(["--networks", name, "--steps", "1", "--rounds", "1", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "kept_memory.json").read_text())["records"]
    assert [one["key"]["kept"] for one in found] == [False, True]
    assert all(one["seconds"] > 0 and one["bytes"] > 64 * 784 * 4 for one in found)
    assert f"| {name} |" in (tmp_path / "kept_memory.md").read_text()
