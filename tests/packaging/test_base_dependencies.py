"""The wheel with its base dependencies alone: layers, networks and saved models, but no training."""

import tomllib

import pytest
from environments import install, run
from paths import ROOT
from tokenizers import Tokenizer, models

import lambda_seq
from lambda_seq import create_model

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    return install(wheel, tmp_path_factory.mktemp("base") / "environment", PROJECT["dependencies"])


USED = """
import importlib, pkgutil, sys
import torch
import lambda_seq
from lambda_seq import LambdaLayer1d, LambdaLayer2d, create_model, from_pretrained, functional as LF, load_predictor

trains = ("lightning", "jsonargparse", "datasets", "pyarrow", "tokenizers", "matplotlib", "rich", "kornia")
for name in (*trains, "PIL", "soundfile", "soxr"):
    assert importlib.util.find_spec(name) is None, name
for found in pkgutil.walk_packages(lambda_seq.__path__, "lambda_seq."):
    if found.name in ("lambda_seq.inference.pictures", "lambda_seq.inference.clips"):  # need Pillow, soundfile and soxr
        continue
    if found.name in ("lambda_seq.interop.huggingface", "lambda_seq.interop.timm_models"):  # need transformers and timm
        continue
    kernels = ("lambda_seq.functional.kernels.", "lambda_seq.functional.position.kernels.")  # need Triton
    if not found.name.startswith(("lambda_seq.tasks", *kernels)):
        importlib.import_module(found.name)
assert "site-packages" in lambda_seq.__file__
y = LambdaLayer1d(16, heads=2, dim_key=4, scope=7)(torch.randn(2, 20, 16))
y.sum().backward()
assert LambdaLayer2d(16, heads=2, dim_key=4, scope=3)(torch.randn(2, 16, 6, 5)).shape == (2, 16, 6, 5)
model = create_model("lambda_lm", dim=16, depth=1, heads=2, scope=7).eval()
model.save_pretrained("saved")
tokens = torch.randint(1, 257, (1, 30))
torch.testing.assert_close(from_pretrained("saved").eval()(tokens), model(tokens))
model.generate(tokens, 3, seed=0)
create_model("lambda_resnet26t", num_classes=3)
texts = create_model("lambda_encoder", num_classes=2, vocab_size=257, dim=8, depth=1, heads=2, scope=3)
reads = {"kind": "bytes", "part": "start", "max_length": 16}
texts.save_pretrained("texts", labels=["no", "yes"], preprocessing={"version": 1, "tokens": reads})
assert load_predictor("texts")("a text").label in ("no", "yes")
pictures = create_model("lambda_resnet26t", num_classes=3)
pictures.save_pretrained("pictures", preprocessing={"version": 1, "size": [8, 8], "mean": [1.0] * 3, "std": [1.0] * 3})
try:
    load_predictor("pictures")
except ModuleNotFoundError as error:
    assert 'pip install "lambda-seq[train]"' in str(error)
shapes = (1, 4, 64, 16), (1, 1, 64, 16), (1, 1, 64, 8), (1, 16, 127)
print(LF.plan(*(torch.empty(shape, device="meta") for shape in shapes)))
"""


def test_layers_and_networks_work(programs, tmp_path):
    shown, _ = run(programs / "python", "-W", "error", "-c", USED, cwd=tmp_path)
    assert "chosen" in shown


def test_a_tokenizer_is_missed_with_the_remedy(programs, tmp_path):
    model = create_model("lambda_lm", dim=8, depth=1, heads=2, scope=3, vocab_size=3)
    model.save_pretrained(tmp_path / "saved", tokenizer=Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, "a")))
    code = "import lambda_seq; lambda_seq.from_pretrained('saved')"
    _, said = run(programs / "python", "-c", code, cwd=tmp_path, code=1)
    assert said.splitlines()[-1] == (
        "ModuleNotFoundError: saved has a tokenizer, which the package tokenizers reads: "
        'pip install "lambda-seq[train]"'
    )


def test_help_needs_no_training(programs, tmp_path):
    for words, code in ((("--help",), 0), ((), 2)):
        shown, said = run(programs / "lambda-seq", *words, cwd=tmp_path, code=code)
        assert shown.startswith("usage: lambda-seq COMMAND")
        assert said == ""


@pytest.mark.parametrize("words", [("fit", "--config", "digits"), ("configs",)], ids=["fit", "configs"])
def test_training_is_missed_in_one_line(programs, tmp_path, words):
    for command in ([programs / "lambda-seq"], [programs / "python", "-m", "lambda_seq"]):
        shown, said = run(*command, *words, cwd=tmp_path, code=1)
        assert shown == ""
        assert said.startswith("error: training needs lightning, jsonargparse, ")
        assert said.endswith('pip install "lambda-seq[train]"\n')
        assert said.count("\n") == 1


def test_importing_tasks_says_the_same(programs, tmp_path):
    for module in ("tasks", "tasks.data", "tasks.cli"):
        _, said = run(programs / "python", "-c", f"import lambda_seq.{module}", cwd=tmp_path, code=1)
        assert said.splitlines()[-1].endswith('pip install "lambda-seq[train]"')


def test_the_version_is_said(programs, tmp_path):
    for command in ([programs / "lambda-seq"], [programs / "python", "-m", "lambda_seq"]):
        assert run(*command, "--version", cwd=tmp_path)[0] == f"lambda-seq {lambda_seq.__version__}\n"
    assert PROJECT["version"] == lambda_seq.__version__
