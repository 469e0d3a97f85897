"""timm's networks and layers: golden outputs everywhere, and timm itself where it is installed.

`golden.json` was made by `python tests/interop/interop_peers.py golden`, with the versions that it names.
"""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import interop_peers as peers
import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file
from torch import nn

from lambda_seq import LambdaLayer1d, LambdaLayer2d, create_model, from_pretrained
from lambda_seq.interop import timm
from lambda_seq.layers.biased import BiasedLambdaLayer2d
from lambda_seq.models import TieredLambdaResNet

GOLDEN = json.loads(peers.GOLDEN.read_text())
SMALL = {"width": 8, "num_classes": 5}


def meta_model(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def small(name="lambda_resnet26t", **options):
    torch.manual_seed(0)
    return create_model(name, **{**SMALL, "zero_init_last": False, **options}).eval()


def saved(model, folder, name="weights.safetensors"):
    save_file(timm.export_state_dict(model), folder / name)
    return folder / name


def picture(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# Outputs


@pytest.mark.parametrize("name", peers.NETWORKS)
def test_networks_have_timms_weights(name):
    model = meta_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == GOLDEN["networks"][name]["parameters"]
    assert peers.signature(timm.export_state_dict(model)) == GOLDEN["networks"][name]["signature"]


@pytest.mark.parametrize("name", peers.NETWORKS)
def test_networks_have_timms_outputs(name):
    shape = peers.shape_of(name)
    model = create_model(name, **({"image_size": shape[-1]} if "rpt" in name else {})).double()
    weights = peers.formula(timm.export_state_dict(model))
    model.load_state_dict(timm.convert_state_dict(weights))
    for mode, expected in GOLDEN["networks"][name]["outputs"].items():
        with torch.no_grad():
            found = peers.shown(model.train(mode == "train")(peers.picture(shape)))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def golden_layer(name):
    """Our layer with the formula's weights of timm's."""
    options, shape = peers.TIMM_LAYERS[name]
    heads, dim_key, scope = options["num_heads"], options["dim_head"], options["r"]
    kind = LambdaLayer2d if scope is None else BiasedLambdaLayer2d
    layer = kind(options["dim"], heads=heads, dim_key=dim_key, scope=scope, max_size=options.get("feat_size")).double()
    shapes = timm.export_layer_state_dict(layer)
    if options.get("qkv_bias"):
        shapes["qkv.bias"] = torch.empty(len(shapes["qkv.weight"]), dtype=torch.float64)
    layer.load_state_dict(timm.convert_layer_state_dict(peers.formula(shapes)))
    return layer, shape


@pytest.mark.parametrize("name", peers.TIMM_LAYERS)
def test_layers_have_timms_outputs(name):
    layer, shape = golden_layer(name)
    for mode, expected in GOLDEN["timm"][name].items():
        found = peers.shown(layer.train(mode == "train")(peers.picture(shape)))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed: pip install timm")
@pytest.mark.slow(seconds=20)
@pytest.mark.parametrize("name", [*peers.NETWORKS, "layers"])
def test_timm_itself(name):
    command = [name] if name == "layers" else ["compare", name]
    done = subprocess.run([sys.executable, peers.__file__, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    distances = json.loads(done.stdout)
    assert len(distances) >= 7
    for what, distance in distances.items():
        assert distance < (1e-10 if what.startswith("float64") else 1e-5), what


# Loading


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.bin", "lambda_resnet26t.pth"])
def test_files(name, tmp_path):
    model = small(in_channels=2)
    weights = timm.export_state_dict(model)
    if name.endswith("safetensors"):
        save_file(weights, tmp_path / name)
    else:
        nested = {"module." + key: tensor for key, tensor in weights.items()} if name == "w.pt" else weights
        torch.save({"epoch": 1, "state_dict": nested} if name != "w.bin" else weights, tmp_path / name)
    state = torch.random.get_rng_state()
    loaded = timm.load(tmp_path / name, width=8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.name == "lambda_resnet26t"
    assert loaded.options["num_classes"] == 5
    assert loaded.options["in_channels"] == 2
    assert not loaded.training
    x = picture(2, 2, 40, 33)
    assert torch.equal(loaded(x), model(x))


def test_averaged_weights_come_first(tmp_path):
    first, second = timm.export_state_dict(small()), timm.export_state_dict(small(zero_init_last=True))
    torch.save({"state_dict": first, "state_dict_ema": second}, tmp_path / "checkpoint.pth.tar")
    loaded = timm.load(tmp_path / "checkpoint.pth.tar", width=8)
    assert not loaded.stages[0][0].norm3.weight.any()


@pytest.mark.parametrize(
    ("name", "options", "inferred"),
    [
        ("lambda_resnet26rpt_256", {"image_size": (64, 96)}, {"image_size": [64, 96]}),
        ("lambda_resnet50ts", {}, {}),
    ],
)
def test_networks_are_recognised(name, options, inferred, tmp_path):
    model = small(name, **options)
    loaded = timm.load(saved(model, tmp_path), width=8)
    assert loaded.name == name
    assert {option: loaded.options[option] for option in inferred} == inferred
    x = picture(1, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))


def test_a_table_takes_smaller_pictures_but_no_larger(tmp_path):
    model = small("lambda_resnet26rpt_256", image_size=64)
    assert model(picture(1, 3, 33, 64)).isfinite().all()
    with pytest.raises(ValueError, match=r"x has size \(5, 5\) but the global position table covers \(4, 4\)"):
        model(picture(1, 3, 80, 80))


def test_into_a_network(tmp_path):
    weights = saved(small(), tmp_path)
    model = small(dropout=0.1).double()
    model.train()
    assert timm.load(weights, model) is model
    assert not model.training
    x = picture(1, 3, 32, 32)
    assert (model(x.double()) - small()(x)).abs().max() < 1e-5


def test_other_classes(tmp_path):
    weights = saved(small(), tmp_path)
    model = timm.load(weights, head=False, width=8, num_classes=3, dropout=0.5)
    assert model(picture(1, 3, 32, 32)).shape == (1, 3)
    assert torch.equal(model.stem[0][0].weight, small().stem[0][0].weight)
    with pytest.raises(
        ValueError, match=r"head\.fc\.weight has shape \(5, 256\) in place of \(3, 256\).*head=False leaves the class"
    ):
        timm.load(weights, width=8, num_classes=3)
    headless = {name: tensor for name, tensor in timm.export_state_dict(small()).items() if "head" not in name}
    save_file(headless, tmp_path / "headless.safetensors")
    assert timm.load(tmp_path / "headless.safetensors", head=False, width=8).num_classes == 1000
    with pytest.raises(ValueError, match=r"head\.fc\.weight is missing; head\.fc\.bias is missing; head=False"):
        timm.load(tmp_path / "headless.safetensors", width=8)


CONFIG = {
    "architecture": "lambda_resnet26t",
    "num_classes": 5,
    "pretrained_cfg": {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.2],
        "input_size": [3, 256, 256],
        "crop_pct": 0.94,
        "interpolation": "bicubic",
        "label_names": list("abcde"),
    },
}


@pytest.fixture
def folder(tmp_path):
    """As a repository of timm's lies on the hub."""
    folder = tmp_path / "repository"
    folder.mkdir()
    saved(small(), folder, "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_a_folder_with_a_config(folder, tmp_path):
    for place in (folder, folder / "model.safetensors"):
        model = timm.load(place, width=8)
        assert model.labels == list("abcde")
        assert model.preprocessing["mean"] == pytest.approx([102, 127.5, 153])
        assert model.preprocessing["image_size"] == [256, 256]
    assert timm.load(folder, width=8, head=False).labels is None
    model.save_pretrained(tmp_path / "ours")
    again = from_pretrained(tmp_path / "ours")
    x = picture(1, 3, 48, 32)
    assert torch.equal(again(x), model(x))
    assert again.preprocessing == model.preprocessing


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("lambda_resnet26t", "timm/lambda_resnet26t.c1_in1k"),
        ("lambda_resnet50ts", "timm/lambda_resnet50ts.a1h_in1k"),
        ("lambda_resnet26t.mine", "timm/lambda_resnet26t.mine"),
        ("timm/lambda_resnet26t.c1_in1k", "timm/lambda_resnet26t.c1_in1k"),
        ("someone/tuned", "someone/tuned"),
    ],
)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_hub(name, repository, file, folder, monkeypatch, tmp_path):
    if file != "model.safetensors":
        torch.save(timm.export_state_dict(small()), folder / file)
        (folder / "model.safetensors").unlink()
    asked = []

    def download(repo_id, filename, **options):
        asked.append((repo_id, options))
        if not (folder / filename).exists():
            raise EntryGoneError(filename, response=RESPONSE)
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    model = timm.load(name, width=8, revision="v1", token="secret", cache_dir="there")
    assert set(map(str, asked)) == {
        str((repository, {"revision": "v1", "cache_dir": "there", "token": "secret"})),
    }
    assert model.labels == list("abcde")


# What the hub answers for a missing file: huggingface_hub 1.0 gave it a name of its own
EntryGoneError = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)
RESPONSE = SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (LocalEntryNotFoundError("offline"), ConnectionError, r"the hub was not reached for timm/.*\(offline\).*file"),
        (ConnectionError("no route\nmore"), ConnectionError, r"was not reached .*\(no route\), and the cache does not"),
        (EntryGoneError("gone", response=RESPONSE), FileNotFoundError, r"has no config\.json"),
        (
            RepositoryNotFoundError("gone", response=RESPONSE),
            FileNotFoundError,
            r"has no repository timm/lambda_resnet",
        ),
        (
            huggingface_hub.errors.RevisionNotFoundError("gone", response=RESPONSE),
            FileNotFoundError,
            r"revision='v9': the hub's timm/lambda_resnet26t\.c1_in1k has no such branch",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_hub_that_has_it_not(error, expected, message, monkeypatch):
    def failing(*given, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing)
    with pytest.raises(expected, match=message):
        timm.load("lambda_resnet26t", revision="v9")


# Refusals


@pytest.mark.parametrize("name", ["lambda_resnet26x", "nowhere/weights.pth", "lambda_resnet26t.pth", "a/b/c", "/no"])
def test_nothing_there(name):
    with pytest.raises(FileNotFoundError, match=r"is no file or folder here, .*one of 'lambda_resnet26t', "):
        timm.load(name)


def test_other_networks_of_timm(folder):
    with pytest.raises(
        ValueError, match=r"name_or_path='timm/resnet50\.a1_in1k': 'resnet50' is no LambdaResNet of timm"
    ):
        timm.load("timm/resnet50.a1_in1k")
    (folder / "config.json").write_text('{"architecture": "halonet26t"}')
    with pytest.raises(ValueError, match=r"repository: 'halonet26t' is no LambdaResNet of timm: expected 'lambda_resn"):
        timm.load(folder)
    save_file({"conv1.weight": torch.ones(1)}, folder / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"other\.safetensors holds weights of no LambdaResNet of timm .*conv1\.weight"
    ):
        timm.load(folder / "other.safetensors")
    with pytest.raises(
        TypeError, match=r"model is LambdaResNet: expected a network of create_model\('lambda_resnet26t'"
    ):
        timm.load(folder, create_model("lambda_resnet_tiny"))
    with pytest.raises(TypeError, match="options num_classes are of a new network: construct model with them"):
        timm.load(folder, small(), num_classes=3)


def test_options_that_the_network_has_not(tmp_path):
    with pytest.raises(TypeError, match="lambda_resnet26t has no option 'stem'"):
        timm.load(saved(small(), tmp_path), stem="small")


def without(*names):
    return lambda weights: {name: tensor for name, tensor in weights.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("stem.conv2.bn.bias"), r"stem\.conv2\.bn\.bias is missing; give the options"),
        (without("stages.3.0.self_attn.norm_q.weight"), r"stages\.3\.0\.self_attn\.norm_q\.weight is missing"),
        (lambda weights: weights | {"fc.bias": torch.ones(1)}, r"fc\.bias is unknown"),
        (
            lambda weights: weights | {"stages.3.0.self_attn.conv_lambda.weight": torch.ones(16, 1, 7, 7, 1)},
            r"conv_lambda\.weight has shape \(16, 1, 7, 7, 1\) in place of \(16, 1, 9, 9, 1\)",
        ),
        (lambda weights: {name: torch.ones(3, 3) for name in weights}, r"\(3, 3\) in place of .*, and \d+ more; give"),
    ],
    ids=["missing", "missing in a layer", "unknown", "shape", "all shapes"],
)
def test_weights_that_do_not_fit(change, message, tmp_path):
    save_file(change(timm.export_state_dict(small())), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors does not fit lambda_resnet26t: .*" + message):
        timm.load(tmp_path / "w.safetensors", small())


def test_another_network_than_the_weights(tmp_path):
    with pytest.raises(
        ValueError, match=r"does not fit lambda_resnet50ts: stages\.0\.2\.conv1_1x1\.conv\.weight is miss"
    ):
        timm.load(saved(small(), tmp_path), small("lambda_resnet50ts"))


def test_damaged_files(tmp_path):
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(b"nonsense" * 9)
        with pytest.raises(ValueError, match=rf"{name} is damaged"):
            timm.load(tmp_path / name)
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"module\.pth is damaged, or holds more than weights, which could run code"):
        timm.load(tmp_path / "module.pth")
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"empty\.pth holds no state dict: expected tensors by name"):
        timm.load(tmp_path / "empty.pth")
    (tmp_path / "w.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"w\.ckpt': expected a file that ends in \.safetensors, "):
        timm.load(tmp_path / "w.ckpt")
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        timm.load(tmp_path)
    saved(small(), tmp_path, "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        timm.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json holds no config"):
        timm.load(tmp_path)


def test_state_dicts_of_nothing_known():
    with pytest.raises(
        ValueError, match=r"no LambdaResNet of timm: stages\.0\.0\.conv4\.weight is unknown; fc is unknown"
    ):
        timm.convert_state_dict({"stages.0.0.conv4.weight": torch.ones(1), "fc": torch.ones(1)})
    with pytest.raises(ValueError, match=r"stages\.0\.0\.self_attn has .*: conv_lambda\.bias is missing; "):
        timm.convert_state_dict({"stages.0.0.self_attn.qkv.weight": torch.ones(1)})
    with pytest.raises(TypeError, match="model is LambdaResNet: expected a TieredLambdaResNet"):
        timm.export_state_dict(create_model("lambda_resnet_tiny"))


# Layers


def test_layers_go_back():
    for name in ("local", "global"):
        layer, _ = golden_layer(name)
        weights = timm.export_layer_state_dict(layer)
        for entry, tensor in timm.convert_layer_state_dict(weights).items():
            assert torch.equal(tensor, layer.state_dict()[entry])


def test_a_layer_without_bias_gets_one_of_zeros():
    weights = timm.export_layer_state_dict(LambdaLayer2d(8, scope=3))
    assert not weights["conv_lambda.bias"].any()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: LambdaLayer2d(8, dim_intra=2, scope=3), "layer has dim_intra=2: timm has dim_intra=1 only"),
        (lambda: LambdaLayer2d(8, 12, scope=3), "layer has dim=8, dim_out=12: timm's layer runs with equal ones only"),
        (lambda: LambdaLayer2d(8, scope=(3, 5)), r"layer has scope=\(3, 5\): timm has square scopes only"),
        (lambda: LambdaLayer2d(8, scope=3, content=False), "content=False: timm has content=True only"),
        (lambda: LambdaLayer2d(8, scope=3, key_norm="l2"), "key_norm='l2': timm has key_norm='softmax' only"),
        (lambda: LambdaLayer2d(8, scope=3, norm="rms"), "layer has RMSNorm: timm has norm='batch' only"),
        (lambda: LambdaLayer2d(8, position=False), "no position lambda: timm has position='table' only"),
        (lambda: LambdaLayer2d(8, scope=3, position="multiscale"), "a MultiScalePosition: timm has position='table'"),
    ],
)
def test_layers_that_timm_has_not(layer, message):
    with pytest.raises(ValueError, match=message):
        timm.export_layer_state_dict(layer())


def test_layers_of_other_kinds():
    with pytest.raises(TypeError, match="layer is LambdaLayer1d: expected a LambdaLayer2d"):
        timm.export_layer_state_dict(LambdaLayer1d(8, scope=3))
    with pytest.raises(ValueError, match=r"layer has stride=2, AvgPool2d.*set layer\.pool = nn\.Identity\(\)"):
        timm.convert_layer(Pooled())
    weights = timm.export_layer_state_dict(LambdaLayer2d(8, scope=3))
    with pytest.raises(ValueError, match=r"norm_q\.bias is missing; extra is unknown"):
        timm.convert_layer_state_dict(without("norm_q.bias")(weights) | {"extra": torch.ones(1)})
    with pytest.raises(ValueError, match=r"qkv\.weight has shape \(8, 8\): expected 4 dimensions"):
        timm.convert_layer_state_dict(weights | {"qkv.weight": torch.ones(8, 8)})
    with pytest.raises(ValueError, match=r"qkv\.weight has shape \(60, 8, 1, 1\): expected 64 \+ 2 rows"):
        timm.convert_layer_state_dict(weights | {"qkv.weight": torch.ones(60, 8, 1, 1)})
    with pytest.raises(ValueError, match=r"shapes of the keys, position bias do not fit"):
        timm.convert_layer_state_dict(weights | {"conv_lambda.weight": torch.ones(8, 1, 3, 3, 1)})


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(2)


def test_timm_that_is_not_there(monkeypatch):
    for name in ("timm", "timm.layers", "timm.layers.lambda_layer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=r"timm does not import, .*: pip install timm torchvision, .*state_dict\(layer\)"
    ):
        timm.export_layer(LambdaLayer2d(8, scope=3))


def test_neither_package_is_imported():
    code = (
        "import sys, lambda_seq; print('lambda_seq.interop' in sys.modules); import lambda_seq.interop;"
        "print([name for name in ('timm', 'lambda_networks', 'torchvision', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False", "[]"]


def test_the_class_is_of_the_registry():
    assert isinstance(meta_model("lambda_resnet26t"), TieredLambdaResNet)
