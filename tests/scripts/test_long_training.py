"""Memory of training in pieces, at small sizes."""

import json

import long_training
import pytest
import torch
from benchmarks.measuring import WrongResultError

from lambda_seq.models import LambdaLM

SMALL = ["--lengths", "256", "1024", "--kinds", "content", "--piece", "128", "--dim", "8", "--depth", "1"]
SMALL += ["--gradients", "cut", "--threads", "1"]


@pytest.mark.slow
def test_the_command(tmp_path, capfd):
    assert long_training.main([*SMALL, "--out", str(tmp_path)]) in (0, 1)  # peaks so small are noise
    records = json.loads((tmp_path / "long_training.json").read_text())["records"]
    assert [one["key"]["length"] for one in records] == [256, 1024]
    assert all(one["status"] == "measured" and one["seconds"] > 0 for one in records)
    assert "content, gradient cut: 256 to 1,024 positions take memory within" in capfd.readouterr().out


def test_growth_of_cut_gradients_is_a_failure():
    def record(gradient, length, size):
        return {"kind": "local", "gradient": gradient, "length": length, "bytes": size}

    found = [record("cut", 1, 100), record("cut", 2, 104), record("whole", 1, 100), record("whole", 2, 200)]
    assert [equal for _, equal in long_training.growth(found)] == [True, True]
    found.append(record("cut", 4, 106))
    (line, equal), _ = long_training.growth(found)
    assert not equal
    assert line == "local, gradient cut: 1 to 4 positions take memory within 1.06 times, which is more than 5 %"


def test_wrong_gradients_are_not_timed(monkeypatch):
    model = long_training.create("content", 8, 1).double()
    long_training.verify(model)
    step = LambdaLM.step
    monkeypatch.setattr(LambdaLM, "step", lambda self, x, state: (step(self, x, state)[0] * 1.001, state))
    with pytest.raises(WrongResultError, match="in pieces a gradient is off by"):
        long_training.verify(model)
    assert torch.get_default_dtype() == torch.float32
