"""Files of saved models: whole whenever the process is killed, and checked when they are read."""

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import finish, start
from safetensors.torch import load_file, save_file
from saved_models import build, tokenizer

from lambda_seq.models import LambdaLM, from_pretrained


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    first = build()
    first.save_pretrained(tmp_path, labels=["a", "b", "c"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(Path, "write_text", lambda *given, **options: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        build("lambda_lm_tiny").save_pretrained(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(OSError, match="disk full"):
        first.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


KILLED = """
import os, sys
from pathlib import Path
import torch
from lambda_seq import create_model
place, where = sys.argv[1:]
name = {"write": "write_text", "replace": "replace"}[place]
count = 0
real = getattr(Path, name)
def deadly(self, *given, **options):
    global count
    count += 1
    if place == "write":
        self.write_bytes(b'{"half a')
    if count == 2:
        os._exit(9)  # as a kill: nothing is cleaned up
    return real(self, *given, **options)
setattr(Path, name, deadly)
torch.manual_seed(1)
create_model("lambda_encoder_tiny", num_classes=3, scope=[3, 5], strides=(2,)).save_pretrained(where)
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["write", "replace"])
def test_a_kill_leaves_whole_files(place, tmp_path):
    build().save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    finish(start(sys.executable, "-c", KILLED, place, tmp_path), code=9)
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert after.keys() == before.keys()
    if place == "write":  # before any file took its place
        assert after == before
        from_pretrained(tmp_path)
    else:  # between two: the weights are new, the config is not, and loading says so
        assert load_file(tmp_path / "model.safetensors").keys() == build().state_dict().keys()
        with pytest.raises(ValueError, match=r"model.safetensors is of another save than config.json beside it"):
            from_pretrained(tmp_path)
    build().save_pretrained(tmp_path)
    assert from_pretrained(tmp_path)(torch.ones(1, 9, dtype=torch.int64)).shape == (1, 3)


def test_saving_over_a_model_replaces_it_and_nothing_else(tmp_path):
    build().save_pretrained(tmp_path, tokenizer=tokenizer())
    (tmp_path / "notes.txt").write_text("mine")
    build("lambda_lm_tiny").save_pretrained(tmp_path)
    assert isinstance(from_pretrained(tmp_path), LambdaLM)
    assert from_pretrained(tmp_path).tokenizer is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]


# Reading


@pytest.fixture
def saved(tmp_path):
    build().save_pretrained(tmp_path, labels=["a", "b", "c"])
    return tmp_path


def change(saved, **entries):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **entries}))


def test_missing_files(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*model.safetensors: save the model again"):
        from_pretrained(saved)
    (saved / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*config.json: give a folder that save_pretrained wrote"):
        from_pretrained(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mod', r"config.json is no JSON \("),
        ("[]", r"config.json names no network of lambda_seq"),
        ('{"model_type": "bert"}', r"config.json names no network of lambda_seq"),
        ('{"model": "lambda_lm"}', r"config.json holds no options of the network"),
        (
            '{"model": "lambda_ml", "options": {}}',
            r"config.json: name='lambda_ml' is no model: did you mean 'lambda_lm'",
        ),
        ('{"model": "lambda_lm", "options": {"dims": 3}}', r"config.json: lambda_lm has no option 'dims'"),
        ('{"model": "lambda_lm", "options": {"dim": 0}}', r"config.json: dim=0: expected at least 1"),
    ],
)
def test_bad_configs(saved, text, message):
    (saved / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        from_pretrained(saved)


def test_another_version_of_the_library_is_fine(saved):
    change(saved, library_version="99.0", something_new=[1])
    assert from_pretrained(saved).labels == ["a", "b", "c"]
    change(saved, model="lambda_of_the_future")
    with pytest.raises(ValueError, match=r"saved by lambda_seq 99.0, this is \d"):
        from_pretrained(saved)


def test_weights_that_do_not_fit_are_named(saved):
    change(saved, options={**build().options, "num_classes": 4})
    with pytest.raises(ValueError, match=r"head.weight has shape \(3, 32\) in place of \(4, 32\); head.bias has shape"):
        from_pretrained(saved)
    change(saved, options={**build().options, "depth": 3, "scope": 5})
    with pytest.raises(
        ValueError, match=r"does not fit the network of config.json: blocks.2.* is missing.*, and \d+ more"
    ):
        from_pretrained(saved)
    change(saved, options=build().options)
    tensors = load_file(saved / "model.safetensors")
    save_file({**tensors, "extra": torch.ones(1)}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"extra is unknown"):
        from_pretrained(saved)


def test_damaged_files(saved):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged \(.*\): save the model again"):
        from_pretrained(saved)
    (saved / "model.safetensors").write_bytes(whole)
    (saved / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json is no tokenizer \("):
        from_pretrained(saved)


def test_pickles_are_not_read(saved):
    (saved / "model.safetensors").unlink()
    torch.save(build().state_dict(), saved / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"there is no .*model.safetensors"):
        from_pretrained(saved)
    torch.save(build().state_dict(), saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        from_pretrained(saved)


# What a config says is not believed


ABSURD = [
    ({"dim": 10**9}, r"has shape \(.*\) in place of \(|overflow|too large"),
    ({"depth": 10**6}, r"depth=1000000 is more than the \d+ weights in .*model.safetensors belong to"),
    ({"depth": 10**12}, r"depth=1000000000000 is more than"),
    ({"vocab_size": 10**12}, r"vocab_size=1000000000000: ids of words are hashes, too many for a vector of each"),
    ({"vocab_size": 10**7}, r"stem.embedding.weight has shape \(257, \d+\) in place of \(10000000, \d+\)"),
    ({"vocab_size": 10**30}, r"config.json: "),
    ({"num_classes": 10**11}, r"head.weight has shape \(3, 32\) in place of \(100000000000, 32\)"),
    ({"heads": 10**9, "dim": 10**9}, r"config.json"),
    ({"dim_key": 10**10}, r"config.json"),
    ({"dim_intra": 10**10}, r"config.json"),
    ({"scope": 10**12 + 1}, r"blocks.0.mixing.layer.position.weight has shape"),
    ({"scope": None, "max_length": 10**15}, r"blocks.0.mixing.layer.position.weight has shape"),
    ({"strides": [1] * 5000}, r"a network of more than \d+ weights, where .*model.safetensors has \d+"),
    ({"ff_ratio": 1e300}, r"config.json"),
    ({"dim": -8}, r"dim=-8: expected at least 1"),
    ({"heads": 0}, r"heads=0: expected at least 1"),
    ({"dim": "64"}, r"dim='64': expected an integer; use 64"),
    ({"dim": 64.0}, r"dim=64.0: expected an integer; use 64"),
    ({"dim": True}, r"dim=True: expected an integer"),
    ({"dim": {"dim": 64}}, r"dim=\{'dim': 64\}: expected an integer"),
    ({"depth": [[2]]}, r"depth=\[\[2\]\]: expected an integer"),
    ({"depth": None}, r"depth=None: expected an integer"),
    ({"scope": [[3], [5]]}, r"scope=\[3\]: expected an integer"),
    ({"position": [["table"], "table"]}, r"position="),
    ({"dropout": float("nan")}, r"dropout=nan: expected a rate"),
    ({"ff_ratio": float("nan")}, r"ff_ratio=nan: expected a number, neither NaN nor infinite"),
    ({"ff_ratio": float("inf")}, r"ff_ratio=inf: expected a number"),
    ({"causal": "yes"}, r"causal='yes': expected True or False"),
    ({"norm": 3}, r"norm=3: expected one of"),
]


@pytest.mark.parametrize(("options", "message"), ABSURD, ids=lambda given: str(given)[:50])
def test_absurd_options_take_no_memory(options, message, saved, monkeypatch):
    config = json.loads((saved / "config.json").read_text())
    change(saved, options={**config["options"], **options})
    real = torch.nn.Linear.__init__

    def light(self, *given, **more):
        real(self, *given, **more)
        assert self.weight.is_meta  # nothing is allocated before all has been compared

    monkeypatch.setattr(torch.nn.Linear, "__init__", light)
    with pytest.raises(ValueError, match=message):
        from_pretrained(saved)


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": [10**9]},
        {"blocks": [1, 10**7]},
        {"blocks": "22"},
        {"blocks": [1.0, 1]},
        {"blocks": 3},
        {"width": 10**9},
        {"se": "a"},
        {"image_size": 10**9, "scope": None},
        {"scope": [3, 5, 7]},
        {"placement": 7},
        {"stem": ["small"]},
    ],
    ids=str,
)
def test_absurd_options_of_networks_for_pictures(options, tmp_path):
    build("lambda_resnet_tiny").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(tmp_path, options={**config["options"], **options})
    with pytest.raises(ValueError, match=r"config.json"):
        from_pretrained(tmp_path)


def test_a_config_that_is_nested_without_end(saved):
    (saved / "config.json").write_text("[" * 10**5 + "]" * 10**5)
    with pytest.raises(ValueError, match=r"config.json is no JSON"):
        from_pretrained(saved)


def test_weights_that_are_too_few_or_too_many(saved):
    # Copies, as safetensors may map the file, which is written again
    tensors = {name: tensor.clone() for name, tensor in load_file(saved / "model.safetensors").items()}
    save_file({name: tensor for name, tensor in tensors.items() if "norm1" not in name}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit the network of config.json: blocks.0.norm1.weight is missing"):
        from_pretrained(saved)
    larger = {name: torch.cat([tensor, tensor]) if tensor.ndim else tensor for name, tensor in tensors.items()}
    save_file(larger, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"stem.embedding.weight has shape \(514, \d+\) in place of \(257, \d+\)"):
        from_pretrained(saved)
    save_file({}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"depth=2 is more than the 0 weights"):
        from_pretrained(saved)
    with (saved / "model.safetensors").open("wb") as file:
        file.write((10**15).to_bytes(8, "little") + b"{}")  # a header of a petabyte
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        from_pretrained(saved)


class Awkward(LambdaLM):
    """A network of one's own that cannot be constructed without memory."""

    def __init__(self, **options):
        super().__init__(**options)
        self.most = self.head.weight.max().item()


def test_own_networks_need_no_meta_device(tmp_path):
    Awkward(dim=8, depth=1).save_pretrained(tmp_path)
    assert isinstance(from_pretrained(tmp_path), Awkward)
