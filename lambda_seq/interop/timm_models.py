"""Our residual networks as networks of timm: `timm.create_model("lambda_seq_lambda_resnet50")`, once this is imported.

    import timm
    import lambda_seq.interop.timm_models

    timm.list_models("lambda_seq_*")
    model = timm.create_model("lambda_seq_lambda_resnet50", num_classes=10, drop_path_rate=0.1)
    maps = timm.create_model("lambda_seq_lambda_resnet50", features_only=True, out_indices=(2, 3))

Each network of images of `lambda_seq.list_models` is there as "lambda_seq_" and its name, with timm's arguments and
methods beside ours: `in_chans`, `img_size`, `global_pool`, `drop_rate`, `drop_path_rate`, and any of the network's own
options. Weights have our names, so that `load_state_dict` takes those of `lambda_seq.create_model`, and
`save_pretrained` writes a folder that `lambda_seq.from_pretrained` reads. There are no trained weights to download.

Feature maps are those of the stages, counted from 0, without the stem's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from lambda_seq.layers.decay import position_parameters
from lambda_seq.models.heads import Inputs
from lambda_seq.models.registry import class_of, create_model, is_own, list_models
from lambda_seq.models.vision.pyramid import Pyramidal
from lambda_seq.models.vision.resnet import LambdaResNet
from lambda_seq.models.vision.tiered import TieredLambdaResNet

try:
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"lambda_seq.interop.timm_models registers networks with timm, and {error.name} is missing: pip install timm",
        name=error.name,
    ) from error

PREFIX = "lambda_seq_"
POOLS = ("avg", "")


class TimmFace(Pyramidal):
    """What timm asks of a network, in front of one of ours.

    Args:
        network: name of ours.
        num_classes: of the classifier; 0 for none, so that the output is the pooled features.
        in_chans: channels of pictures.
        img_size: largest picture of global position tables.
        global_pool: "avg", or "" for the map of the last stage, without a classifier.
        drop_rate: in front of the classifier.
        drop_path_rate: stochastic depth of the last block.
        options: of the network, by our names.

    Raises:
        TypeError: the network has no such option.
        ValueError: another pooling, or what the network refuses.
    """

    num_classes: int
    name: str | None
    options: dict[str, Any] | None

    def __init__(
        self,
        network: str,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] | None = None,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        **options: Any,
    ) -> None:
        _check_pool(global_pool, num_classes)
        given: dict[str, Any] = {"num_classes": max(num_classes, 1), "in_channels": in_chans, "dropout": drop_rate}
        given |= {"stochastic_depth": drop_path_rate} | ({} if img_size is None else {"image_size": img_size})
        with torch.device("meta"):
            whole = create_model(network, **given, **options).options or {}
        super().__init__(**whole)
        self.name, self.options = network, whole  # by which it is saved
        self.in_chans, self.global_pool = in_chans, global_pool
        self.num_features = self.head_hidden_size = self.channels[-1]
        self.feature_info: Any = self.feature_info.info  # as timm takes it
        if num_classes == 0:
            self.reset_classifier(0)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another classifier, with new weights; none for 0 classes.

        Raises:
            ValueError: another pooling than "avg", or "" with classes.
        """
        pool = self.global_pool if global_pool is None else global_pool
        _check_pool(pool, num_classes)
        weight = next(self.stem.parameters())
        inputs = Inputs(self.num_features, "image", self.in_channels)
        head = self.objective.layer(inputs, num_classes) if num_classes else nn.Identity()  # type: ignore[attr-defined]
        self.head = head.to(weight.device, weight.dtype)
        self.num_classes, self.global_pool = num_classes, pool
        if self.options is not None and num_classes:
            self.options = {**self.options, "num_classes": num_classes}

    def forward_features(self, x: Tensor) -> Tensor:
        """The map of the last stage, (B, num_features, h, w)."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of that map, or with `pre_logits` its pooled features (B, num_features)."""
        x = x.mean((2, 3)) if self.global_pool else x
        x = self.dropout(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        """As of our network; without pooling, the map."""
        return super().forward(x, mask) if self.global_pool else self.features(x, mask)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Maps of stages, and, unless these alone are asked for, that of the last one in front of them.

        Args:
            x: pictures.
            indices: stages from 0 on, or how many of the last; None for all.
            norm: nothing, as maps have no norm behind them.
            stop_early: leave out stages behind the last that is asked for, if maps alone are.
            output_fmt: "NCHW".
            intermediates_only: give a list of maps.

        Raises:
            ValueError: another format, or no such stage.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r}: expected 'NCHW', as maps are")
        last = len(list(self.stages.children())) - 1
        wanted = self._taken(indices)
        run = wanted if intermediates_only else sorted({*wanted, last})
        maps = dict(zip(sorted(set(run)), self._stages(x, None, sorted(set(run)))[0], strict=True))
        found = [maps[index] for index in wanted]
        return found if intermediates_only else (maps[last], found)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out what these maps do not need, and say which they are.

        Args:
            indices: as of `forward_intermediates`.
            prune_norm: nothing.
            prune_head: leave out the classifier.
        """
        wanted = self._taken(indices)
        self.stages = nn.ModuleList(list(self.stages.children())[: max(wanted) + 1])
        if prune_head:
            self.reset_classifier(0)
        return wanted

    def _taken(self, indices: int | Sequence[int] | None) -> list[int]:
        count = len(list(self.stages.children()))
        given = range(count) if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
        found = [index + count if index < 0 else index for index in given]
        if not found or not all(0 <= index < count for index in found):
            raise ValueError(f"out_indices={indices}: expected stages from 0 to {count - 1}, or how many of the last")
        return found

    def no_weight_decay(self) -> set[str]:
        """Names of the position embeddings, beside what timm leaves out itself."""
        network = cast(nn.Module, self)
        known = {id(parameter) for parameter in position_parameters(network)}
        return {name for name, parameter in network.named_parameters() if id(parameter) in known}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers from the stem on, for rates by depth: a stage, or each block, is one."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse it: lambda layers recompute their own backward pass already.

        Raises:
            ValueError: it is asked for.
        """
        if enable:
            raise ValueError(
                "grad_checkpointing=True: there is none, as lambda layers keep only their inputs anyway; leave it out"
            )


class TimmLambdaResNet(TimmFace, LambdaResNet):
    """`LambdaResNet` as a network of timm; see `TimmFace`."""


class TimmTieredLambdaResNet(TimmFace, TieredLambdaResNet):
    """`TieredLambdaResNet` as a network of timm; see `TimmFace`."""


KINDS: dict[str, Any] = {"LambdaResNet": TimmLambdaResNet, "TieredLambdaResNet": TimmTieredLambdaResNet}


def names() -> list[str]:
    """Our networks of images, by our names."""
    return [name for name in list_models() if is_own(name) and class_of(name) in KINDS]


def _check_pool(pool: str, num_classes: int) -> None:
    if pool not in POOLS or (not pool and num_classes):
        raise ValueError(
            f"global_pool={pool!r} with num_classes={num_classes}: expected 'avg', or '' with num_classes=0"
        )


def _entry(name: str) -> Callable[..., nn.Module]:
    kind = KINDS[class_of(name)]

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise ValueError(
                f"pretrained=True: there are no trained weights of {PREFIX}{name}; give a file: checkpoint_path=…"
            )
        if options.get("features_only"):
            options.setdefault("out_indices", tuple(range(_stages(name, options))))
        getter = {"feature_cls": "getter"}
        found: nn.Module = build_model_with_cfg(
            partial(kind, name), PREFIX + name, pretrained, feature_cfg=getter, **options
        )
        return found

    build.__name__ = build.__qualname__ = PREFIX + name
    build.__doc__ = f"`lambda_seq.create_model({name!r})`, as timm has networks."
    return build


def _stages(name: str, options: Mapping[str, Any]) -> int:
    given = {option: options[option] for option in ("blocks", "placement") if option in options}
    with torch.device("meta"):
        return len(cast(Any, create_model(name, **given)).stages)


def _small(name: str) -> bool:
    return name.endswith(("_small", "_tiny"))


def _configuration(name: str) -> dict[str, Any]:
    """What timm knows of a network: sizes of pictures, and where the first convolution and the classifier are."""
    size = 32 if _small(name) else 256 if name.endswith("_256") else 224
    return {
        "input_size": (3, size, size),
        "num_classes": 10 if _small(name) else 1000,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "first_conv": "stem.0.0",
        "classifier": "head",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2102.08602",
        "paper_name": "LambdaNetworks: Modeling Long-Range Interactions Without Attention",
    }


default_cfgs = generate_default_cfgs({PREFIX + name: _configuration(name) for name in names()})
for _name in names():
    if PREFIX + _name not in globals():  # of a module that is read anew
        setattr(sys.modules[__name__], PREFIX + _name, register_model(_entry(_name)))
