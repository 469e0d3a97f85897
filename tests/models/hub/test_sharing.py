import copy
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file
from saved_models import SMALL, build, draw, tokenizer

import lambda_seq
from lambda_seq.layers import RelativePositionTable
from lambda_seq.models import LambdaEncoder, LambdaLM, LambdaResNet, TieredLambdaResNet, from_pretrained
from lambda_seq.models.hub import folder
from lambda_seq.models.model import Model


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_model_is_the_same(name, tmp_path):
    model = build(name).train()
    x = draw(model)
    model(x)  # moves the running statistics of batch norms
    where = model.save_pretrained(tmp_path / "some" / "model")
    assert where == tmp_path / "some" / "model"
    assert sorted(file.name for file in where.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert model.training
    loaded = from_pretrained(where)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert (loaded.name, loaded.num_classes) == (name, model.num_classes)
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in model.options.items()} == (
        loaded.options
    )
    assert torch.equal(loaded(x), model.eval()(x))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_keep_their_dtype(dtype, tmp_path):
    model = build().to(dtype)
    loaded = from_pretrained(model.save_pretrained(tmp_path))
    for (name, found), expected in zip(loaded.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
        assert found.dtype == expected.dtype


def test_what_goes_with_the_weights_comes_back(tmp_path):
    model, facts = build(), {"sampling_rate": 16000, "mean": [0.5, -1e-3], "nested": {"a": None, "b": True}}
    words = tokenizer()
    model.save_pretrained(tmp_path, labels=["no", "yes", "ünklar"], tokenizer=words, preprocessing=facts)
    assert model.labels is None  # saving changes nothing of the model
    loaded = from_pretrained(tmp_path)
    assert loaded.labels == ["no", "yes", "ünklar"]
    assert loaded.preprocessing == facts
    assert loaded.tokenizer.to_str() == words.to_str()
    # and goes on, unless others are given
    again = from_pretrained(loaded.save_pretrained(tmp_path / "again", labels=["a", "b", "c"]))
    assert (again.labels, again.preprocessing) == (["a", "b", "c"], facts)
    assert again.tokenizer.to_str() == words.to_str()


def test_tied_weights_are_saved_once(tmp_path):
    model = build("lambda_lm_tiny")
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) == sum(
        tensor.numel() for tensor in {*model.parameters(), *model.buffers()}
    )
    loaded = LambdaLM.from_pretrained(tmp_path)
    assert loaded.head.weight is loaded.stem.embedding.weight
    torch.testing.assert_close(loaded.head.weight, model.head.weight)


def test_loading_leaves_random_numbers_alone(tmp_path):
    build().save_pretrained(tmp_path)
    before = torch.get_rng_state()
    from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_class_is_checked(tmp_path):
    build("lambda_lm_tiny").save_pretrained(tmp_path)
    assert isinstance(Model.from_pretrained(tmp_path), LambdaLM)
    assert isinstance(lambda_seq.from_pretrained(str(tmp_path), device="cpu"), LambdaLM)
    with pytest.raises(ValueError, match=r"holds 'lambda_lm_tiny', a LambdaLM, no LambdaEncoder: use LambdaLM.from_pr"):
        LambdaEncoder.from_pretrained(tmp_path)


# Errors


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"labels": ["a", "b"]}, ValueError, r"labels has 2 entries: expected num_classes=3"),
        ({"labels": [0, 1, 2]}, TypeError, r"labels=\[0, 1, 2\]: expected strings"),
        ({"tokenizer": "bert"}, TypeError, r"tokenizer is str: expected a tokenizers.Tokenizer, or None"),
        ({"tokenizer": tokenizer(400)}, ValueError, r"tokenizer has 400 tokens but the model takes vocab_size=257"),
        ({"preprocessing": [1]}, TypeError, r"preprocessing is list: expected a dict"),
        (
            {"preprocessing": {"mean": torch.ones(2)}},
            TypeError,
            r"preprocessing\['mean'\] is tensor.*: expected numbers",
        ),
        ({"preprocessing": {"mean": float("nan")}}, TypeError, r"preprocessing\['mean'\] is nan"),
        ({"preprocessing": {1: 2}}, TypeError, r"preprocessing has the key 1: expected strings"),
    ],
    ids=str,
)
def test_what_cannot_be_saved_is_told_before_anything_is_written(given, error, message, tmp_path):
    with pytest.raises(error, match=message):
        build().save_pretrained(tmp_path / "model", **given)
    assert not any(tmp_path.iterdir())


def test_models_that_cannot_be_saved(tmp_path):
    with torch.device("meta"):
        model = build()
    with pytest.raises(ValueError, match=r"the model is on the meta device"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer has 5 tokens but the model takes none"):
        build("lambda_resnet_tiny").save_pretrained(tmp_path, tokenizer=tokenizer())
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"folder='.*file' is a file: expected a folder"):
        build().save_pretrained(tmp_path / "file")
    odd = build()
    odd.options["position"] = torch.nn.Identity()
    with pytest.raises(TypeError, match=r"options\['position'\] is .*: expected numbers"):
        odd.save_pretrained(tmp_path)


# Networks that were constructed directly


class Wider(LambdaEncoder):
    """A network of one's own, whose arguments are others than those of its base."""

    def __init__(self, factor: int, *, note: str = "", **options):
        super().__init__(**{"dim": 8 * factor, "depth": 1, "heads": 2, **options})


class Listed(LambdaEncoder):
    def __init__(self, *sizes):
        super().__init__(dim=sizes[0])


class Plain(LambdaResNet):
    """Without a constructor of its own."""


DIRECT = {
    "encoder": lambda: LambdaEncoder(num_classes=3, dim=8, depth=1, heads=2, strides=(2,)),
    "language model": lambda: LambdaLM(dim=8, depth=1, heads=2, scope=None, position="exponential"),
    "resnet": lambda: LambdaResNet(num_classes=4, blocks=(1, 1), width=8, stem="small", scope=(3, 5)),
    "timm's": lambda: TieredLambdaResNet(num_classes=4, blocks=(1, 1), placement="CL", width=8),
    "defaults": lambda: LambdaEncoder(),
    "own": lambda: Wider(1, note="mine", scope=3),
    "own by name": lambda: Wider(factor=2, num_classes=3),
    "own without a constructor": lambda: Plain(blocks=(1, 1), width=8, stem="small"),
    "numbers of numpy": lambda: LambdaLM(dim=np.int64(8), depth=1, heads=np.int32(2), dropout=np.float32(0.5)),
}


@pytest.mark.parametrize("kind", DIRECT)
def test_a_network_that_was_constructed_directly_is_saved(kind, tmp_path):
    torch.manual_seed(0)
    model = DIRECT[kind]().eval()
    assert model.name is None
    x = draw(model)
    for place in ("first", "again"):
        loaded = from_pretrained(model.save_pretrained(tmp_path / place))
        assert type(loaded) is type(model)
        assert torch.equal(loaded(x), model(x))
        assert (loaded.name, loaded.options) == (None, _plain(model.options))
        assert type(model).from_pretrained(tmp_path / place).options == loaded.options
        model = loaded


def _plain(options):
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def test_options_are_those_of_the_call_and_go_with_copies():
    model = Wider(2, scope=3)
    assert model.options == {"factor": 2, "scope": 3}
    assert copy.deepcopy(model).options == pickle.loads(pickle.dumps(model)).options == model.options
    resized = LambdaResNet(blocks=(1,), width=8, stem="small", scope=None, image_size=8)
    resized.resize(12)
    assert resized.options["image_size"] == [12, 12]
    assert build().name == "lambda_encoder_tiny"
    assert build().options["dim"] == 32  # what the name stands for is among them


def test_a_class_that_was_saved_by_another_module(tmp_path):
    Wider(1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model"] == f"{__name__}.Wider"
    (tmp_path / "config.json").write_text(json.dumps({**config, "model": "__main__.Wider"}))
    assert type(Wider.from_pretrained(tmp_path)) is Wider
    with pytest.raises(ValueError, match=r"'__main__.Wider' is no model here: import __main__, which defines"):
        from_pretrained(tmp_path)


def test_a_class_of_the_same_name_is_not_taken_for_ours(tmp_path):
    kind = type("LambdaEncoder", (LambdaEncoder,), {"__module__": "elsewhere"})
    kind(dim=8, depth=1).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model"] == "elsewhere.LambdaEncoder"
    assert type(from_pretrained(tmp_path)) is kind
    LambdaEncoder(dim=8, depth=1).save_pretrained(tmp_path)
    assert type(from_pretrained(tmp_path)) is LambdaEncoder


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Listed(8), ValueError, r"Listed was constructed with arguments that have no names, \*args: take them"),
        (
            lambda: LambdaEncoder(position=[RelativePositionTable(1, 16, scope=(3,))] * 3),
            TypeError,
            r"options\['position'\] is .*: expected numbers.*; a model .* is kept by torch.save",
        ),
        (lambda: Wider(1, note=object()), TypeError, r"options\['note'\] is <object"),
        (lambda: Wider(1, note=float("nan")), TypeError, r"options\['note'\] is nan"),
    ],
)
def test_arguments_that_cannot_be_written(build, error, message, tmp_path):
    model = build()
    with pytest.raises(error, match=message):
        model.save_pretrained(tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_wrong_arguments_are_told_by_the_class_itself():
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'dims'"):
        LambdaEncoder(dims=3)
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'factor'"):
        Wider()


# The hub, whose API is replaced


class FakeHub:
    """Repositories as folders."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, []

    def api(self, token=None):
        self.token = token
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def create_branch(self, repo_id, *, branch, exist_ok):
        self.calls.append(("create_branch", repo_id, branch))

    def upload_folder(self, *, repo_id, folder_path, revision, commit_message, delete_patterns):
        self.calls.append(("upload_folder", repo_id, revision, commit_message, delete_patterns))
        for file in Path(folder_path).iterdir():
            shutil.copy(file, self.root / repo_id / file.name)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(self, repo_id, *, revision, cache_dir, token, allow_patterns):
        self.calls.append(("snapshot_download", repo_id, revision, cache_dir, token))
        assert set(allow_patterns) == set(folder.FILES)
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_a_model_goes_to_the_hub_and_comes_back(hub, tmp_path):
    model = build()
    address = model.push_to_hub(
        "someone/tiny", labels=["a", "b", "c"], private=True, token="secret", revision="trial", commit_message="First"
    )
    assert address == "https://hub/someone/tiny/commit/1"
    assert hub.token == "secret"
    assert hub.calls == [
        ("create_repo", "someone/tiny", True, True),
        ("create_branch", "someone/tiny", "trial"),
        ("upload_folder", "someone/tiny", "trial", "First", ["tokenizer.json"]),
    ]
    loaded = from_pretrained("someone/tiny", revision="trial", cache_dir=tmp_path / "cache", token="secret")
    assert hub.calls[-1] == ("snapshot_download", "someone/tiny", "trial", tmp_path / "cache", "secret")
    assert loaded.labels == ["a", "b", "c"]
    x = draw(model)
    assert torch.equal(loaded(x), model.eval()(x))
    assert "from_pretrained('someone/tiny')" in (tmp_path / "hub/someone/tiny/README.md").read_text()


def test_a_tokenizer_is_not_deleted_on_the_hub(hub):
    build().push_to_hub("someone/tiny", tokenizer=tokenizer())
    assert hub.calls[-1] == ("upload_folder", "someone/tiny", None, "Save the model", None)
    assert from_pretrained("someone/tiny").tokenizer.get_vocab_size() == 5


def test_a_hub_that_is_not_there(monkeypatch):
    def offline(*given, **options):
        raise OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled.\nMore lines.")

    def not_cached(*given, **options):
        raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder")

    for failing in (offline, not_cached):
        monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
        with pytest.raises(
            ConnectionError, match=r"name_or_path='some/model' is no folder here, the hub was not reached"
        ):
            from_pretrained("some/model")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", offline)
    with pytest.raises(
        ConnectionError, match=r"repo_id='some/model': the hub was not reached, .*save_pretrained\(folder\)"
    ):
        build().push_to_hub("some/model")
    with pytest.raises(ValueError, match=r"labels has 1 entries"):
        build().push_to_hub("some/model", labels=["a"])


def test_offline_as_the_hub_library_itself_says_it():
    code = "import lambda_seq; lambda_seq.from_pretrained('some/model', cache_dir='/nonexistent/cache')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HOME": "/nonexistent"},
    )
    assert "ConnectionError: name_or_path='some/model' is no folder here, the hub was not reached" in done.stderr


@pytest.mark.parametrize("name", ["model", "a/b/c", "./model", "/nowhere/model", "~/model", "model/"])
def test_names_that_can_be_no_repository(name):
    with pytest.raises(
        FileNotFoundError, match=r"is no folder here, .*and no name of the hub, owner/name: give the folder"
    ):
        from_pretrained(name)


def test_sharing_is_imported_lazily():
    lazy = ("huggingface_hub", "safetensors", "tokenizers")
    code = f"import sys, lambda_seq; print([name for name in {lazy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
