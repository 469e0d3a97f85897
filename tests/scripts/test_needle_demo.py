"""Needle retrieval by each method."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import needle_demo
import numpy as np
import pytest
import torch
from benchmarks.measuring import Limits, Outcome
from demo.layers import METHODS
from paths import ROOT

from lambda_seq.tasks.data.synthetic.recall import Recall

NAMES = [name for name, method in METHODS.items() if 1 in method.dims]


def key(method, length=64, seconds=30.0, budget=2**30, **changes):
    fixed = {"dim": 16, "scope": 15, "seed": 0, "device": "cpu", "dtype": "float32"}
    return {"method": method, "length": length, "seconds": seconds, "budget": budget, **fixed, **changes}


@pytest.fixture
def patient(monkeypatch):
    """In this process no step may be too slow: its end would be the tests' end."""
    monkeypatch.setattr(needle_demo, "at_most", lambda seconds: nullcontext())


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", NAMES)
def test_each_method_trains_at_any_length(name):
    found = needle_demo.train_and_test(key(name, 96, seconds=0.3))
    assert found["steps"] >= 1
    assert found["trained_length"] >= needle_demo.FIRST_LENGTH
    assert 0 <= found["accuracy"] <= 1
    assert found["tested"] >= 2


@pytest.mark.usefixtures("patient")
def test_a_needle_is_found_by_content_lambdas_and_not_beyond_a_window():
    found = needle_demo.train_and_test(key("content", 256, seconds=12.0, dim=32))
    assert found["accuracy"] > 0.8
    found = needle_demo.train_and_test(key("local-attention", 256, seconds=4.0, scope=7))
    assert found["accuracy"] < 0.5


def test_sequences_have_one_key_and_many_values():
    task = Recall(500, pairs=1, keys=1, values=needle_demo.VALUES, noise=1, distractors=0.5)
    x, label = needle_demo.batch(task, 3, np.random.default_rng(0), "cpu")
    assert x.shape == (3, 500)
    for sequence, value in zip(x.tolist(), label.tolist(), strict=True):
        assert sequence[:-2].count(2) == 1
        assert sequence[sequence.index(2) + 1] == 3 + value
        assert 180 < sum(3 <= token < 3 + needle_demo.VALUES for token in sequence) < 320


def test_a_disturbed_training_is_marked(monkeypatch):
    numbers = {"accuracy": 0.5, "tested": 2, "steps": 1, "trained_length": 64, "others": 0.9}
    monkeypatch.setattr(needle_demo, "in_fresh_process", lambda *_, **__: Outcome("measured", value=numbers))
    limits = Limits(2**26, 120, threads=os.cpu_count())
    found = needle_demo.measure(key("content", 64), limits)
    assert needle_demo.cell({"key": {"length": 64}, **found}) == "~ 50.0 %"
    numbers["others"] = 0.0
    assert needle_demo.cell({"key": {"length": 64}, **needle_demo.measure(key("content", 64), limits)}) == "50.0 %"


def test_the_load_stands_below_the_table(monkeypatch):
    shown = []
    monkeypatch.setattr(needle_demo, "show", lambda tables, notes, recorder: shown.append(notes[-1]))
    options = needle_demo.parser().parse_args([])
    for share in (0.1, 0.9):
        one = {"key": key("content"), "status": "out of memory", "tested": 0, "others": share, "disturbed": share > 0.5}
        needle_demo.report(None, [one], options)
    assert shown[0] == "Other programs took up to 10% of the cores"
    assert (
        shown[1]
        == "Other programs took up to 90% of the cores: ~ marks 1 trainings that so made fewer steps in their time"
    )


@pytest.mark.slow
def test_out_of_memory_and_too_slow_are_reached():
    limits = Limits(2**26, 120, threads=1)
    found = needle_demo.measure(key("materialised", 4096, budget=2**26), limits)
    assert (found["status"], found["accuracy"]) == ("out of memory", None)
    found = needle_demo.measure(key("fused", 4096, seconds=0.01), limits)
    assert (found["status"], found["accuracy"]) == ("too slow", None)


@pytest.mark.slow(seconds=35)
def test_the_command_leaves_files_and_goes_on(tmp_path, forks):
    command = [sys.executable, "scripts/needle_demo.py", "--out", str(tmp_path), "--threads", "1", "--seconds", "1"]
    command += ["--lengths", "64", "128", "--dim", "16", "--methods", "content", "fused", "--resume"]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr + done.stdout
        records = json.loads((tmp_path / "needle_demo.json").read_text())["records"]
        assert len(records) == 4
        assert {record["status"] for record in records} == {"measured"}
    assert "| ours, content only |" in (tmp_path / "needle_demo.md").read_text()
    assert (tmp_path / "needle_demo.png").read_bytes().startswith(b"\x89PNG")


def test_bad_options():
    with pytest.raises(SystemExit, match="--lengths 8: expected at least 64"):
        needle_demo.main(["--lengths", "8"])
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="--device cpu"):
            needle_demo.main(["--device", "cuda"])
