"""What lies beside an exported network, and the command that exports one."""

import json
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from paths import ROOT
from saved_models import build, tokenizer

from lambda_seq.__main__ import main
from lambda_seq.interop import onnx, onnx_command

onnx_package = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install '.[onnx]'")
pytestmark = pytest.mark.slow(seconds=7)  # as exports are


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
