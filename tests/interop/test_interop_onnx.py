"""Exported networks in ONNX Runtime: equal at sizes that were not traced, and described to who calls them."""

import json
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_networks import NETWORKS, network
from packaging.requirements import Requirement
from paths import ROOT
from saved_models import build, tokenizer

from lambda_seq.__main__ import main
from lambda_seq.interop import onnx, onnx_command
from lambda_seq.interop.exporting import call_of

onnx_package = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install '.[onnx]'")
LONG = 65536


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """From a name to the model, the export and its session; each once."""
    made = {}

    def get(name):
        if name not in made:
            model = network(name)
            if name == "pictures":  # of any size they take minutes to export
                model.preprocessing = {"size": [16, 20]}
            done = onnx.export_onnx(model, tmp_path_factory.mktemp("onnx") / "model.onnx")
            made[name] = model, done, onnxruntime.InferenceSession(done.file)
        return made[name]

    return get


def differences(model, session, **sizes):
    """Of the outputs, for inputs of these sizes; each of the greatest that torch gives."""
    call = call_of(model)
    return onnx.differences(call, session, onnx.resized(call, **sizes))


# The rows: encoders of tokens, samples and features, residual networks, a step of a language model


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "step"])
def test_networks_are_equal_at_sizes_that_were_not_traced(name, exported):
    _, done, _ = exported(name)
    assert done.difference < 1e-5
    assert "batch 3" in done.checked


@pytest.mark.parametrize("name", ["tokens", "words", "waveform", "spectrum", "features"])
@pytest.mark.parametrize(("batch", "size"), [(1, 1), (2, 2), (1, 17), (1, 3001)])
def test_short_and_odd_lengths(name, batch, size, exported):
    model, _, session = exported(name)
    assert max(differences(model, session, batch=batch, size=size)) < 1e-5


@pytest.mark.parametrize("name", ["tokens", "waveform", "spectrum", "features"])
def test_long_inputs(name, exported):
    """65,536 bytes, samples and vectors."""
    model, _, session = exported(name)
    assert max(differences(model, session, batch=1, size=LONG)) < 1e-5


def test_padding_changes_nothing(exported):
    _, _, session = exported("causal")
    x = np.arange(60, dtype=np.int64)[None] % 256
    alone, _ = session.run(None, {"x": x, "mask": np.ones_like(x, dtype=bool)})
    padded = np.concatenate([x, np.full((1, 41), 7)], 1)
    found, _ = session.run(None, {"x": padded, "mask": np.arange(101)[None] < 60})
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)


def test_nothing_real_is_finite(exported):
    _, _, session = exported("tokens")
    x = np.zeros((2, 9), dtype=np.int64)
    logits, answers = session.run(None, {"x": x, "mask": np.zeros_like(x, dtype=bool)})
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-6)


def test_streams_go_on_from_states(exported):
    """Of one batch and another, as far as tables reach; from what the description says states begin with."""
    model, done, session = exported("step")
    assert done.difference < 1e-5
    about = json.loads(done.description.read_text())
    tokens, *states = about["inputs"]
    assert (tokens["name"], tokens["shape"], tokens["dtype"]) == ("tokens", ["batch"], "int64")
    feed = {one["name"]: np.full([3, *one["shape"][1:]], float(one["initial"]), dtype=one["dtype"]) for one in states}
    state = model.init_state(3)
    rows = torch.randint(20, (40, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for row in rows:
            expected, state = model.step(row, state)
            logits, *after = session.run(None, {"tokens": row.numpy(), **feed})
            feed = dict(zip(feed, after, strict=True))
            assert onnx.relative(torch.from_numpy(logits), expected) < 1e-5


def test_pictures_one_by_one(exported):
    model, _, session = exported("pictures")
    assert {one.name: one.shape for one in session.get_inputs()} == {"x": ["batch", 3, 16, 20]}
    assert max(differences(model, session, batch=1, size=1)) < 1e-5


# What lies beside the file


def test_the_description_says_what_a_caller_needs(tmp_path):
    model = build(scope=5, strides=None, vocab_size=20).eval()
    model.labels, model.tokenizer = ["a", "b", "c"], tokenizer()
    model.preprocessing = {"version": 1, "tokens": {"kind": "tokenizer", "pad": 0}}
    folder = tmp_path / "new"
    done = onnx.export_onnx(model, folder / "mine.onnx", mask=False)
    about = json.loads((folder / "mine.json").read_text())
    assert {file.name for file in folder.iterdir()} == {"mine.json", "mine.onnx", "mine.tokenizer.json"}
    assert about["inputs"] == [{"name": "x", "dtype": "int64", "shape": ["batch", "length"]}]
    assert (about["outputs"], about["labels"]) == (["logits", "answers"], ["a", "b", "c"])
    assert (about["takes"], about["tokenizer"]) == ("tokens", "mine.tokenizer.json")
    assert about["preprocessing"] == model.preprocessing
    assert about["answers"] == model.objective.said
    assert about["difference"] == done.difference < 1e-5
    session = onnxruntime.InferenceSession(done.file)
    assert {one.name: one.shape for one in session.get_inputs()} == {"x": ["batch", "length"]}
    assert [one.name for one in session.get_outputs()] == about["outputs"]
    nodes = onnx_package.load(done.file).graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}


def test_an_output_that_differs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "relative", lambda *_: float("nan"))
    with pytest.raises(RuntimeError, match="differ from torch's by nan"):
        onnx.export_onnx(build(scope=5).eval(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


# The command


def test_the_command_writes_checks_and_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    build("lambda_lm_tiny").save_pretrained("saved")
    monkeypatch.setattr(sys, "argv", ["lambda-seq", "export", "saved", "--out", "m.onnx"])
    main()
    shown = capsys.readouterr().out
    assert "greatest difference" in shown
    assert "tokens, batch 3" in shown
    assert json.loads(Path("m.json").read_text())["inputs"][0]["name"] == "tokens"


def test_an_error_is_one_message(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"^error: name_or_path='.*nowhere'") as end:
        onnx_command.main(["export", str(tmp_path / "nowhere")])
    assert "Traceback" not in str(end.value)
    build().save_pretrained(tmp_path / "saved")
    with pytest.raises(SystemExit, match=r"expected a name that ends in \.onnx"):
        onnx_command.main(["export", str(tmp_path / "saved"), "--out", str(tmp_path / "model.pt")])


def test_versions_are_those_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, project["optional-dependencies"]["onnx"]):
        assert version(requirement.name) in requirement.specifier
