"""Bytes and memory of layers whose sequences processes share."""

import json
import subprocess
import sys

import parallel_costs
import pytest
import torch.distributed as dist
from benchmarks.measuring import WrongResultError
from paths import ROOT

from lambda_seq import parallel


def record(kind, processes, peak, sent=((("all_reduce", 100),),), status="measured"):
    key = {"kind": kind, "processes": processes, "lengths": [64], "dim": 8, "heads": 2, "dim_key": 4, "scope": 5}
    sent = [dict(parts) for parts in sent]
    return {"key": key | {"norm": "rms"}, "status": status, "message": "", "peak_bytes": peak, "sent": sent}


@pytest.mark.parametrize(
    ("kind", "peak", "sent", "fine"),
    [
        ("local", 29, [100, 100], True),
        ("local", 31, [100, 100], False),  # too much memory
        ("local", 29, [100, 104], False),  # bytes that grow
        ("local", 29, [1200, 1200], False),  # more than 8 · 4 · (k + r) · v
        ("exponential causal", 29, [1200, 1200], True),  # has more numbers than a content lambda
        ("global", 29, [100, 200], True),  # exchanges what grows with n
    ],
)
def test_what_is_too_much(kind, peak, sent, fine):
    records = [record(kind, 1, 100), record(kind, 4, peak, [[("all_to_all", each)] for each in sent])]
    lines, found = parallel_costs.judged(records)
    assert found is fine
    assert f"{kind}: {peak / 100:.3f} times the memory of a single process at 64" in lines


@pytest.fixture
def alone(tmp_path):
    """A world of one process."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield parallel.make_mesh(1)
    dist.destroy_process_group()


def test_a_wrong_result_is_not_measured(alone, monkeypatch):
    key = record("local causal", 1, 0)["key"]
    parallel_costs.verify(key, alone)
    monkeypatch.setattr(parallel, "sum_over_sequence", lambda x, mesh: 2 * x)
    with pytest.raises(WrongResultError, match=r"in chunks the result is off by"):
        parallel_costs.verify(key, alone)


def test_a_ring_sends_keys_and_values_three_times():
    key = record("local", 4, 0)["key"]
    assert parallel_costs.ring_bytes(key, 64) == 4 * 6 * 16 * 8 * 3
    assert parallel_costs.numbers(key) == (4 + 5) * 4
    assert parallel_costs.numbers(key | {"kind": "content"}) == 4 * 4


@pytest.mark.slow(seconds=40)
def test_the_command(tmp_path, forks):
    command = [sys.executable, "scripts/parallel_costs.py", "--out", str(tmp_path), "--lengths", "512", "8192"]
    command += ["--processes", "2", "--dim", "16", "--dim-key", "4", "--scope", "9", "--resume"]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
        assert done.returncode in (0, 1), done.stdout + done.stderr  # of so few positions the share is greater
    records = json.loads((tmp_path / "parallel_costs.json").read_text())["records"]
    assert len(records) == 2 * len(parallel_costs.KINDS)
    for found in records:
        assert found["status"] == "measured"
        assert found["peak_bytes"] > 0
        short, long = (sum(parts.values()) for parts in found["sent"])
        assert (short < long) == (found["key"]["kind"] == "global" and found["key"]["processes"] == 2)
    text = (tmp_path / "parallel_costs.md").read_text()
    assert "local: the same bytes for all lengths" in text
    assert "| exponential causal | 8,192 |" in text


def test_bad_options(tmp_path):
    (tmp_path / "parallel_costs.json").write_text(json.dumps({"machine": "another", "records": [], "command": ""}))
    with pytest.raises(SystemExit, match=r"--resume: .* was measured on another"):
        parallel_costs.main(["--out", str(tmp_path), "--resume"])
