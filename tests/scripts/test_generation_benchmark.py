import json
from types import SimpleNamespace

import generation_benchmark as benchmark
import pytest
import torch
from benchmarks.measuring import WrongResultError

TINY = ("--network", "lambda_lm_tiny", "--scope", "9", "--prefill", "32", "--rounds", "1", "--threads", "1")


@pytest.mark.slow
def test_contexts_are_compared(tmp_path, capsys):
    options = ("--contexts", "64", "256", "--kinds", "local", "table", "--tokens", "6", "--out", str(tmp_path))
    code = benchmark.main([*TINY, *options])
    found = json.loads((tmp_path / "generation.json").read_text())["records"]
    assert [record["status"] for record in found] == ["measured"] * 4
    sizes = {(one["key"]["kind"], one["key"]["context"]): one["state_bytes"] for one in found}
    assert sizes["local", 64] == sizes["local", 256]
    assert sizes["table", 256] > 2 * sizes["table", 64]
    assert code in (0, 1)  # times of so few tokens say little
    assert "a token after 256 takes" in capsys.readouterr().out
    assert "| table | 256 |" in (tmp_path / "generation.md").read_text()
    assert (tmp_path / "generation.png").stat().st_size > 5_000


def record(kind, context, seconds, memory=100.0, turn=0, **more):
    found = {"seconds": seconds, "bytes": memory, "state_bytes": 10, "prefill_bytes": 5, "prefill_seconds": 1.0}
    key = {"kind": kind, "context": context, "round": turn}
    return {"key": key, "status": "measured", "message": "", "constant_state": kind != "table", **found, **more}


def test_the_best_round_counts():
    rounds = [record("local", 64, 2.0, 90, 0), record("local", 64, 1.0, 100, 1), record("local", 64, 3.0, 95, 2)]
    (found,) = benchmark.best([*rounds, {"key": {"kind": "local", "context": 64}, "status": "failed"}])
    assert (found["seconds"], found["bytes"]) == (1.0, 90)


@pytest.mark.parametrize(
    ("kind", "longest", "fine"),
    [
        ("local", {"seconds": 1.05}, True),
        ("local", {"seconds": 1.2}, False),
        ("exponential", {"seconds": 1.0, "memory": 120.0}, False),
        ("content", {"seconds": 1.0, "state_bytes": 12}, False),
        ("table", {"seconds": 9.0, "memory": 900.0, "state_bytes": 90}, True),  # says that it grows
    ],
)
def test_growth_is_judged(kind, longest, fine):
    ((name, line, equal),) = benchmark.growth([record(kind, 64, 1.0), record(kind, 1024, **longest)])
    assert (name, equal) == (kind, fine)
    assert line.startswith(f"a token after 1,024 takes {longest['seconds']:.2f} times as long as after 64")


def test_a_wrong_stream_is_noticed():
    for kind in benchmark.KINDS:
        benchmark.verify(benchmark.create("lambda_lm_tiny", kind, 9, length=300))
    model = benchmark.create("lambda_lm_tiny", "local", 9, length=300)
    step = model.step_features

    def forgetful(tokens: torch.Tensor, state: object) -> object:
        return step(tokens, model.init_state(2))

    model.step_features = forgetful
    with pytest.raises(WrongResultError, match=r"in pieces the output is off by .*, 1e-09 is allowed"):
        benchmark.verify(model)


def test_a_failure_is_told(tmp_path, monkeypatch, capsys):
    broken = SimpleNamespace(status="failed", message="it broke", value=None)
    monkeypatch.setattr("benchmarks.measuring.in_fresh_process", lambda *given, **options: broken)
    assert benchmark.main([*TINY, "--contexts", "64", "--kinds", "local", "--out", str(tmp_path)]) == 1
    assert "it broke" in capsys.readouterr().out
