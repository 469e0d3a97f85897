import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import benchmark
import pytest
import torch
from benchmarks import command_line, comparing, peers, plan_grid
from benchmarks.measuring import Job, Limits, NotInstalledError, WrongResultError, in_fresh_process, measure
from benchmarks.methods import Case, layer_method
from benchmarks.recording import Recorder
from paths import ROOT

LIMITS = Limits(budget=2**30, seconds=0.01, threads=1)
TINY = ("--dim", "16", "--threads", "1", "--seconds", "0.01")
CASE = Case((40,), dim=16, scope=7)
IMAGE = Case((9, 9), dim=16, scope=5)


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/benchmark.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


# What jobs do; other processes import them from here.


def allocate(size: int):
    return lambda: torch.ones(size // 4).sum()


def missing_package():
    raise NotInstalledError("pip install something")


def twice_as_large(build, case: Case) -> torch.nn.Module:
    class Wrong(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = build(case)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.layer(x)

    return Wrong()


def right(layer: torch.nn.Module, case: Case) -> torch.nn.Module:
    return layer.layer.double()


WRONG = layer_method("wrong attention", partial(twice_as_large, partial(peers.attention, peers.fused)), right)


# Measuring


def test_peak_memory_is_what_a_step_allocates():
    found = measure(Job(partial(allocate, 64 * 2**20)), LIMITS)
    assert found.status == "measured"
    assert found.peak_bytes == pytest.approx(64 * 2**20, rel=0.1)
    assert found.total_bytes > found.peak_bytes
    assert 0 < found.seconds <= found.median
    assert found.repeats >= 3


def test_a_step_beyond_the_budget_is_out_of_memory():
    found = measure(Job(partial(allocate, 2 * 2**30)), LIMITS)
    assert (found.status, bool(found)) == ("out of memory", False)


def test_what_ends_a_process_is_told():
    assert measure(Job(missing_package), LIMITS).message == "pip install something"
    assert in_fresh_process(os._exit, 3, limits=LIMITS).message == "the process ended with 3"
    assert in_fresh_process(time.sleep, 60, limits=replace(LIMITS, deadline=0.1)).status == "out of time"


# Checks before timing


@pytest.mark.parametrize("name", [name for name in peers.METHODS if not name.startswith("lambda-networks")])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_methods_compute_what_they_should(name, dtype):
    if name.startswith("local-attention"):
        pytest.importorskip("local_attention")
    peers.METHODS[name].verify(replace(CASE, dtype=dtype))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ["local", "global", "lambda-networks", "lambda-networks-global"])
def test_methods_compute_what_they_should_on_images(name, batch):
    if name.startswith("lambda-networks"):
        pytest.importorskip("lambda_networks")
    peers.METHODS[name].verify(replace(IMAGE, batch=batch))


def test_a_wrong_peer_is_noticed():
    with pytest.raises(WrongResultError, match=r"is off by 1\.0e\+00 relative to float64, 1e-05 is allowed"):
        WRONG.verify(CASE)


def test_a_wrong_algorithm_is_noticed(monkeypatch):
    from lambda_seq.functional.position.registry import REGISTRY

    exact = REGISTRY["banded"].forward
    monkeypatch.setattr(REGISTRY["banded"], "forward", lambda *arguments: exact(*arguments) * 1.001)
    plan = peers.ours_plan(peers.ours("local", replace(CASE, size=(4096,))), replace(CASE, size=(4096,)))
    assert plan.algorithm == "banded"
    with pytest.raises(WrongResultError):
        peers.METHODS["local"].verify(replace(CASE, size=(4096,)))


def test_windows_see_as_much_as_the_scope():
    assert 2 * peers.window(True, Case((1,), scope=127)) + 1 == 127
    assert 3 * peers.window(False, Case((1,), scope=127)) == 126


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "local_attention", None)
    monkeypatch.setitem(sys.modules, "lambda_networks", None)
    with pytest.raises(NotInstalledError, match="pip install local-attention"):
        peers.local_attention(True, CASE)
    with pytest.raises(NotInstalledError, match="pip install lambda-networks"):
        peers.lambda_networks("local", IMAGE)


# Records and ratios


def record(method: str, case: Case = CASE, status: str = "measured", **found):
    label = peers.METHODS[method].label
    numbers = {"seconds": None, "peak_bytes": None, "total_bytes": None, "others": None, "message": "", "repeats": 3}
    return {"key": comparing.key_of(method, case), "label": label, "status": status, **numbers, **found}


def test_no_ratio_over_a_wrong_result():
    found = [record("local", seconds=1.0), record("fused", status="wrong result", message="output is off")]
    (row,) = comparing.ratio_table(found).rows
    assert row[2:] == ("–", "", "fused attention: wrong result, output is off")


def test_ratios_and_aims():
    case = Case((16384,))
    found = [record("local", case, seconds=1.0), record("products", case, seconds=0.5)]
    found += [record("global", case, seconds=2.0), record("fused", case, seconds=39.0, status="predicted")]
    rows = [row[1:] for row in comparing.ratio_table(found).rows]
    assert rows == [
        ("fused attention", "39× faster", "≥ 40×", "predicted, missed"),
        ("fused attention", "19.5× faster", "≥ 20×", "predicted, missed"),
        ("limit: matrix products", "2× its time", "≤ 3×", "reached"),
    ]


def test_memory_checks():
    sizes = {64: 100, 128: 220}
    found = [record("local", replace(CASE, size=(n,)), peak_bytes=p, total_bytes=p) for n, p in sizes.items()]
    found += [record("fused", replace(CASE, size=(n,)), peak_bytes=2 * p) for n, p in sizes.items()]
    lines = comparing.memory_checks(found)
    assert lines[0] == "lambda, local: twice the length takes ×2.20 at most, more than ×2.1"
    assert lines[1].startswith("lambda, local: 0.50 times the peak of fused attention at most")
    assert comparing.memory_table(found).rows[1][1] == "0.00021 MiB (×2.20)"


def test_slow_steps_are_predicted(tmp_path):
    recorder = Recorder(tmp_path / "layers.json", [], {})
    recorder.records = [record("fused", replace(CASE, size=(64,)), seconds=2.0, peak_bytes=100)]
    key = comparing.key_of("fused", replace(CASE, size=(256,)))
    assert benchmark.predict(recorder, key, longest=40) is None
    found = benchmark.predict(recorder, key, longest=30)
    assert (found.status, found.seconds, found.peak_bytes) == ("predicted", 32.0, 400)
    assert benchmark.predict(recorder, {**key, "heads": 2}, longest=30) is None


def test_an_interrupted_run_keeps_what_it_measured_and_goes_on(tmp_path, capsys):
    keys = [{"n": n} for n in range(3)]

    def interrupted(key):
        if key["n"] == 1:
            raise KeyboardInterrupt
        return {"value": key["n"]}

    recorder = Recorder(tmp_path / "some.json", ["python", "x y"], {"cores": 2})
    recorder.run(keys, str, interrupted)
    assert recorder.interrupted
    assert "--resume" in capsys.readouterr().out
    kept = json.loads((tmp_path / "some.json").read_text())
    assert kept == {"command": "python 'x y'", "machine": {"cores": 2}, "records": [{"key": {"n": 0}, "value": 0}]}

    resumed = Recorder(tmp_path / "some.json", ["python", "z", "--resume"], {"cores": 2}, resume=True)
    asked = []
    resumed.run(keys, str, lambda key: asked.append(key["n"]) or {"value": key["n"]})
    assert asked == [1, 2]
    assert [found["value"] for found in resumed.records] == [0, 1, 2]
    assert resumed.command == "python 'x y'; python z --resume"
    again = Recorder(tmp_path / "some.json", ["python", "x y", "--resume"], {"cores": 2}, resume=True)
    assert again.command == "python 'x y'; python z --resume"
    with pytest.raises(ValueError, match="another --out"):
        Recorder(tmp_path / "some.json", [], {"cores": 8}, resume=True)


# The plan's grid


def test_plan_is_measured_and_fitted():
    cases = [replace(CASE, size=(256,), scope=scope) for scope in (3, 31)] + [replace(IMAGE, batch=2)]
    found = [{"key": comparing.key_of("plan", case), **plan_grid.measure_point(case, 1.0)} for case in cases]
    for one in found:
        for name in plan_grid.PASSES:
            assert one[name]["chosen"] in one[name]["measured"].keys() <= one[name]["predicted"].keys()
    ratios = plan_grid.ratios(found)
    assert len(ratios) == len(plan_grid.rows(found)) == 6
    assert min(ratios) >= 1
    assert plan_grid.ratios(found, plan_grid.present_rates(CASE)) == ratios
    fitted = plan_grid.fit(found)
    assert fitted.products > 0
    assert fitted.calls > 0


def test_the_grid_covers_what_it_should():
    some, whole = (list(plan_grid.grid(Case((1,)), full)) for full in (False, True))
    assert len(some) < len(whole) == len(set(whole))
    assert {case.size[0] for case in whole if len(case.size) == 1} >= {256, 65536}
    assert {case.dtype for case in whole} == {"float32", "bfloat16"}


# Command lines


@pytest.mark.parametrize(("text", "count"), [("8GiB", 2**33), ("1.5MiB", 3 * 2**19), ("100", 100)])
def test_sizes(text, count):
    assert command_line.byte_count(text) == count


def test_errors_name_the_option(capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="'8GB': expected a size such as 8GiB"):
        command_line.byte_count("8GB")
    with pytest.raises(SystemExit):
        benchmark.main(["layers", "--methods", "nothing"])
    assert "nothing" in capsys.readouterr().err
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="--device cpu"):
            benchmark.main(["--device", "cuda"])


def test_layers_refuses_a_wrong_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(peers.METHODS, "fused", WRONG)
    options = ("--lengths", "64", "--no-images", "--methods", "local", "fused", *TINY)
    assert benchmark.main(["layers", *options, "--out", str(tmp_path)]) == 1
    written = json.loads((tmp_path / "layers.json").read_text())
    assert [found["status"] for found in written["records"]] == ["measured", "wrong result"]
    assert written["command"].startswith("python scripts/benchmark.py layers --lengths 64")
    assert written["machine"]["torch"] == torch.__version__
    tables = (tmp_path / "layers.md").read_text()
    assert "wrong attention: wrong result" in tables
    assert "× faster" not in tables
    assert "× faster" not in capsys.readouterr().out


def test_memory_command(tmp_path):
    done = run("memory", "--lengths", "128", "256", "--methods", "content", *TINY, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "twice the length takes" in done.stdout
    assert (tmp_path / "memory.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "memory.json").read_text())["records"]
    assert [one["key"]["size"] for one in found] == [[128], [256]]


@pytest.mark.slow(seconds=25)
def test_plan_command(tmp_path, forks):
    done = run("plan", "--lengths", "256", "--fit", "--longest", "0.01", "--threads", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Rates(products=" in done.stdout
    assert (tmp_path / "plan.png").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(tmp_path):
    command = [sys.executable, "scripts/benchmark.py", "--lengths", "64", *TINY, "--out", str(tmp_path)]
    # A shell's background commands ignore SIGINT, and those they start do, too
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "preexec_fn": heard}
    process = subprocess.Popen(command, cwd=ROOT, **options)
    deadline = time.monotonic() + 120
    while not (tmp_path / "layers.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in output
    assert json.loads((tmp_path / "layers.json").read_text())["records"]
    assert (tmp_path / "layers.md").exists()
