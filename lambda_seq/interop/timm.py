"""timm's LambdaResNets (R. Wightman): their weights in ours, and ours in theirs, with equal outputs.

| timm | here |
|---|---|
| stem.conv1.conv, .bn | stem.0.0, stem.0.1 |
| stages.S.B.conv1_1x1.conv, .bn | stages.S.B.conv1, norm1 |
| stages.S.B.conv2_kxk.conv, .bn | stages.S.B.mix, norm2 |
| stages.S.B.self_attn, post_attn | stages.S.B.mix.layer, norm2 |
| … .qkv: queries, keys, values | … .project: queries, values, keys |
| … .conv_lambda: (K, 1, r, r, 1) **with a bias** (K) | … .position (1, K, r, r), position_bias |
| … .pos_emb: (2H − 1, 2W − 1, K) by m − n | … .position (1, K, 2H − 1, 2W − 1), global |
| head.fc | head |

Networks with global position tables (rpt) take pictures up to their size, smaller ones too; `model.resize` makes them
take others. Limit: other options than classes, channels and picture size cannot be read from weights; give those, or
`model`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from lambda_seq.interop.files import SUFFIXES, locate, read_weights
from lambda_seq.interop.timm_layer import (
    PACKAGE,
    convert_layer,
    convert_layer_state_dict,
    export_layer,
    export_layer_state_dict,
    read_layer,
)
from lambda_seq.interop.weights import listed
from lambda_seq.layers import LambdaLayer2d
from lambda_seq.models.model import Model
from lambda_seq.models.registry import create_model
from lambda_seq.models.vision.tiered import TieredLambdaResNet

__all__ = [
    "convert_layer",
    "convert_layer_state_dict",
    "convert_state_dict",
    "export_layer",
    "export_layer_state_dict",
    "export_state_dict",
    "load",
]

WEIGHTS = {  # timm's network, and its weights on the hub
    "lambda_resnet26t": "c1_in1k",
    "lambda_resnet26rpt_256": "c1_in1k",
    "lambda_resnet50ts": "a1h_in1k",
}
HEAD = ("head.fc.weight", "head.fc.bias")
MIXED = "lamhalobotnet50ts_256"  # lambdas in one stage, halo and bottleneck attention in others
OTHERS = ("q.weight", "kv.weight", "pos_embed.height_rel", "pos_embed.width_rel")  # of those attentions
_MODULES = (  # timm's module, ours; stages.S.B. in front of those in the middle
    ("conv1_1x1.conv", "conv1"),
    ("conv1_1x1.bn", "norm1"),
    ("conv2_kxk.conv", "mix"),
    ("conv2_kxk.bn", "norm2"),
    ("post_attn", "norm2"),
    ("conv3_1x1.conv", "conv3"),
    ("conv3_1x1.bn", "norm3"),
    ("shortcut.conv", "shortcut.0"),
    ("shortcut.bn", "shortcut.1"),
)


def load(
    name_or_path: str | os.PathLike[str],
    model: TieredLambdaResNet | None = None,
    *,
    head: bool = True,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    **options: Any,
) -> TieredLambdaResNet:
    """A network with weights of timm, in evaluation mode; its outputs are those of timm's.

    Which network it is, its classes, channels and picture size are read from the weights. Labels and preprocessing
    (mean and std of pixels from 0 to 255) come with weights of the hub, whose config says them.

    Args:
        name_or_path: a file (.safetensors; .pth, .pt, .bin, read without running code), a folder as the hub has them,
            or a name of the hub: "timm/lambda_resnet26t.c1_in1k", for short "lambda_resnet26t".
        model: the network to load into, whose dtype and device stay; None for a new one.
        head: with the classifier; without it the network keeps its own, for other classes:
            `head=False, num_classes=10`.
        revision: branch, tag or commit of the repository; None for its main branch.
        cache_dir: where downloads are kept; None for the hub's own cache.
        token: of the hub, for private repositories.
        options: of a new network, in place of what the weights say.

    Raises:
        FileNotFoundError: no such file, folder or repository.
        ConnectionError: the hub was not reached and the cache does not hold the repository.
        ValueError: a file is damaged, the network is another one, or weights do not fit it, naming them.
        TypeError: `model` is no TieredLambdaResNet, or the network has no such option.
    """
    if model is not None and not isinstance(model, TieredLambdaResNet):
        raise TypeError(
            f"model is {type(model).__name__}: expected a network of create_model({', '.join(map(repr, WEIGHTS))})"
        )
    if model is not None and options:
        raise TypeError(f"options {', '.join(options)} are of a new network: construct model with them")
    found = locate(
        name_or_path,
        _repository(name_or_path),
        advice=f"give a path, owner/name, or one of {', '.join(map(repr, WEIGHTS))}",
        revision=revision,
        cache_dir=cache_dir,
        token=token,
    )
    config = found.config or {}
    if "architecture" in config:
        _check_known(config["architecture"], str(found.weights.parent))
    weights = read_weights(found.weights)
    if not head:
        weights = {name: tensor for name, tensor in weights.items() if name not in HEAD}
    _check_alone(weights, str(found.weights))
    if model is None:
        name, inferred = _recognise(weights, str(found.weights))
        with torch.random.fork_rng(devices=[]):
            model = cast(TieredLambdaResNet, create_model(name, **{**inferred, **options}))
    _check_fit(weights, model, str(found.weights), head)
    model.load_state_dict(convert_state_dict(weights), strict=head)
    _describe(model, config, head)
    return model.eval()


def convert_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a LambdaResNet of timm as that of a `TieredLambdaResNet`.

    Raises:
        ValueError: names that no such network has, such as those of other attention.
    """
    _check_alone(weights, "weights")
    converted: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in weights.items():
        block, _, rest = name.partition(".self_attn.")
        if rest:
            layers.setdefault(block, {})[rest] = tensor
        elif ours := _renamed(name):
            converted[ours] = tensor
        else:
            unknown.append(f"{name} is unknown")
    if unknown:
        raise ValueError(f"weights are of no LambdaResNet of {PACKAGE}: {listed(unknown)}")
    for block, parts in layers.items():
        layer = read_layer(parts, f"{block}.self_attn").state_dict()
        converted |= {f"{block}.mix.layer.{name}": tensor for name, tensor in layer.items()}
    return converted


def export_state_dict(model: TieredLambdaResNet) -> dict[str, Tensor]:
    """The state dict of one of our networks as timm's: for `timm.create_model(name, ...).load_state_dict`.

    Raises:
        TypeError: no TieredLambdaResNet.
        ValueError: a layer whose options timm's has not.
    """
    if not isinstance(model, TieredLambdaResNet):
        raise TypeError(f"model is {type(model).__name__}: expected a TieredLambdaResNet")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LambdaLayer2d)}
    blocks = {name.removesuffix(".mix.layer") for name in layers}
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".mix.layer." not in name:
            weights[_renamed_back(name, blocks)] = tensor
    for name, layer in layers.items():
        block = name.removesuffix(".mix.layer")
        weights |= {f"{block}.self_attn.{part}": tensor for part, tensor in export_layer_state_dict(layer).items()}
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}


def _repository(name_or_path: str | os.PathLike[str]) -> str | None:
    """The repository of the hub that a name means: "lambda_resnet26t" -> "timm/lambda_resnet26t.c1_in1k"."""
    name = os.fspath(name_or_path)
    owner, slash, rest = name.partition("/")
    if name.endswith(SUFFIXES):
        return None
    if not slash and name.split(".")[0] == MIXED:
        _check_known(MIXED, f"name_or_path={name!r}")
    if not slash and name.split(".")[0] in WEIGHTS:
        return f"timm/{name if '.' in name else f'{name}.{WEIGHTS[name]}'}"
    if not slash or "/" in rest or not rest or owner in ("", ".", "..", "~"):
        return None
    if owner == "timm":
        _check_known(rest.split(".")[0], f"name_or_path={name!r}")
    return name


def _check_known(name: str, where: str) -> None:
    known = ", ".join(map(repr, WEIGHTS))
    if name == MIXED:
        raise ValueError(
            f"{where}: {name!r} mixes lambda layers with halo and bottleneck attention, which are not here: expected a "
            f"network of lambda layers alone, {known}; its single layers go by convert_layer"
        )
    if name not in WEIGHTS:
        raise ValueError(f"{where}: {name!r} is no LambdaResNet of {PACKAGE}: expected {known}")


def _check_alone(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError where other attention than lambda layers is among the weights."""
    if any(name.partition(".self_attn.")[2] in OTHERS for name in weights):
        _check_known(MIXED, where)


def _recognise(weights: Mapping[str, Tensor], where: str) -> tuple[str, dict[str, Any]]:
    """The name of the network that has these weights, and the options that their shapes tell."""
    blocks: dict[int, int] = {}
    for name in weights:
        if match := re.match(r"stages\.(\d+)\.(\d+)\.", name):
            stage, block = map(int, match.groups())
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    is_global = any(name.endswith(".self_attn.pos_emb") for name in weights)
    known: dict[tuple[tuple[int, ...], bool], str] = {
        ((2, 2, 2, 2), False): "lambda_resnet26t",
        ((2, 2, 2, 2), True): "lambda_resnet26rpt_256",
        ((3, 4, 6, 3), False): "lambda_resnet50ts",
    }
    depth = tuple(blocks[stage] for stage in sorted(blocks))
    if (depth, is_global) not in known:
        raise ValueError(
            f"{where} holds weights of no LambdaResNet of {PACKAGE} ({depth} blocks, e.g. "
            f"{', '.join(list(weights)[:3])}): expected {', '.join(map(repr, WEIGHTS))}, or give model"
        )
    options: dict[str, Any] = {}
    for name, option, axis in ((HEAD[0], "num_classes", 0), ("stem.conv1.conv.weight", "in_channels", 1)):
        if name in weights and weights[name].ndim > axis:
            options[option] = weights[name].shape[axis]
    for name, tensor in weights.items():
        if match := re.fullmatch(r"stages\.(\d+)\.(\d+)\.self_attn\.pos_emb", name):
            stage, block = map(int, match.groups())
            stride = 4 * 2 ** (stage - (block == 0 and stage > 0))  # of the map that this lambda sees
            options["image_size"] = [(count + 1) // 2 * stride for count in tensor.shape[:2]]
            break
    return known[depth, is_global], options


def _check_fit(weights: Mapping[str, Tensor], model: TieredLambdaResNet, where: str, head: bool) -> None:
    """Raise ValueError unless these are timm's weights of the network, naming those that are not."""
    expected = {name: tensor.shape for name, tensor in export_state_dict(model).items() if head or name not in HEAD}
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} in place of {tuple(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    if problems:
        advice = "give the options it was trained with, or a network of its own by model"
        if all(problem.startswith(HEAD) for problem in problems):
            advice = "head=False leaves the classifier out"
        network = model.name or type(model).__name__
        raise ValueError(f"{where} does not fit {network}: {listed(problems)}; {advice}")


def _describe(model: Model, config: Mapping[str, Any], head: bool) -> None:
    """Labels and preprocessing, as far as a config of the hub says them."""
    data = {**config, **(config.get("pretrained_cfg") or {})}
    labels = data.get("label_names")
    if head and isinstance(labels, list) and len(labels) == model.num_classes:
        model.labels = [str(label) for label in labels]
    if "mean" in data and "std" in data:
        model.preprocessing = {"input": "image"}
        model.preprocessing |= {name: [255 * number for number in data[name]] for name in ("mean", "std")}
        if "input_size" in data:
            model.preprocessing |= {"in_channels": data["input_size"][0], "image_size": list(data["input_size"][1:])}
        model.preprocessing |= {name: data[name] for name in ("crop_pct", "interpolation") if name in data}


def _renamed(name: str) -> str | None:
    """timm's name of a weight outside of lambda layers -> ours; None for one that these networks have not."""
    if match := re.fullmatch(r"stem\.conv([123])\.(conv|bn)\.(\w+)", name):
        convolution, part, weight = match.groups()
        return f"stem.{int(convolution) - 1}.{0 if part == 'conv' else 1}.{weight}"
    if match := re.fullmatch(r"(stages\.\d+\.\d+)\.(.+)\.(\w+)", name):
        block, module, weight = match.groups()
        return f"{block}.{dict(_MODULES)[module]}.{weight}" if module in dict(_MODULES) else None
    return name.replace("head.fc", "head") if name in HEAD else None


def _renamed_back(name: str, blocks: set[str]) -> str:
    """Our name -> timm's; `blocks` are those with a lambda layer."""
    if match := re.fullmatch(r"stem\.(\d)\.(\d)\.(\w+)", name):
        convolution, part, weight = match.groups()
        return f"stem.conv{int(convolution) + 1}.{'conv' if part == '0' else 'bn'}.{weight}"
    if match := re.fullmatch(r"(stages\.\d+\.\d+)\.(.+)\.(\w+)", name):
        block, module, weight = match.groups()
        other = "conv2_kxk.bn" if block in blocks else "post_attn"
        back = {ours: theirs for theirs, ours in _MODULES if theirs != other}
        return f"{block}.{back[module]}.{weight}"
    return name.replace("head", "head.fc")
