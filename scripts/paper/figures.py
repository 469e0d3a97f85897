"""What can be said of a network of the paper's tables: computed from shapes alone, or measured in a training step."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.measuring import Job, Step
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lambda_seq.layers import LambdaLayer2d
from lambda_seq.layers.attention import AxialAttention, LinearAttention, LocalAttention, RelativeAttention
from lambda_seq.models import LambdaResNet, count_flops
from paper.building import TrainingOf, build, step_of
from paper.detectors import DetectorTraining, Products, make_detector
from paper.rows import Row

BATCH = 128  # of the paper's memory column
WARM_UP = 64  # rows and columns of the pictures that load the code


@dataclass(frozen=True)
class Computed:
    """Figures of a network that need no run.

    Attributes:
        parameters: how many.
        flops: per picture, by the paper's rule.
        numbers: in attention maps or gathered position embeddings, at batch 128.
        held_bytes: weights, their momentum and buffers.
    """

    parameters: int
    flops: int
    numbers: int
    held_bytes: int


def computed(row: Row) -> Computed:
    """Figures of a row's network, from shapes alone.

    Raises:
        NotInstalledError: the row is a detector, and torchvision is missing.
    """
    return _computed(row.name, json.dumps(row.options), row.size, row.detector)


@functools.cache
def _computed(name: str, options: str, size: int, detector: bool) -> Computed:
    with torch.device("meta"):
        network = build(name, json.loads(options), size)
        model: nn.Module = Products(make_detector(network, size)) if detector else network
    parameters, buffers = list(model.parameters()), list(model.buffers())
    for parent in list(model.modules()):  # norms are not counted, and take most of the time
        for child, module in parent.named_children():
            if isinstance(module, nn.BatchNorm2d):
                setattr(parent, child, nn.Identity())
    return Computed(
        sum(parameter.numel() for parameter in parameters),
        count_flops(model, torch.empty(1, 3, size, size, device="meta")),
        sum(map_numbers(network, size)),
        sum(2 * one.nbytes for one in parameters) + sum(one.nbytes for one in buffers),
    )


def map_numbers(model: LambdaResNet, size: int, batch: int = BATCH) -> Iterator[int]:
    """Numbers in the attention maps, or gathered embeddings, of each layer; resolutions are what stages put out."""
    seen: set[int] = set()  # tables that a stage shares count once
    for index, stage in enumerate(model.stages):
        side = math.ceil(size / (model.stem_stride * 2**index))
        positions = side * side
        for block in stage:  # type: ignore[attr-defined]
            layer = getattr(block.mix, "layer", None)
            if isinstance(layer, RelativeAttention):
                yield batch * layer.heads * positions * positions
            elif isinstance(layer, AxialAttention):
                yield batch * layer.rows.heads * positions * 2 * side
            elif isinstance(layer, LinearAttention):
                yield batch * layer.dim * layer.depth
            elif isinstance(layer, LocalAttention):
                yield batch * layer.heads * positions * math.prod(layer.scope)
            elif isinstance(layer, LambdaLayer2d) and layer.position is not None and id(layer.position) not in seen:
                seen.add(id(layer.position))
                in_scope = math.prod(layer.position((side, side)).shape[2:])
                pairs = in_scope if layer.algorithm == "convolution" else positions * positions
                yield layer.dim_intra * layer.dim_key * pairs


class Training(TrainingOf):
    """A training step of a network by itself."""

    def __call__(self) -> Step:
        """The step, on random pictures."""
        torch.manual_seed(0)
        with torch.device(self.device):
            model = build(self.name, self.options, self.size).train()
            x = torch.randn(self.batch, model.in_channels, self.size, self.size)
            target = torch.randint(model.num_classes, (self.batch,))

        def loss() -> torch.Tensor:
            kernels = sdpa_kernel(SDPBackend.MATH) if self.materialised else nullcontext()
            with kernels, self.half:
                return loss_of(model(x), target)

        return step_of(model, loss, self.name)


def loss_of(output: torch.Tensor | list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Cross entropy of logits, or a stand-in that reaches all maps of a backbone."""
    if isinstance(output, list):
        return torch.stack([one.float().square().mean() for one in output]).sum()
    return F.cross_entropy(output.float(), target)


@dataclass(frozen=True)
class WarmUp:
    """One step with small pictures: it loads code that is no part of a measurement."""

    training: TrainingOf

    def __call__(self) -> None:
        """Take the step."""
        replace(self.training, size=min(WARM_UP, self.training.size))()()


def job(key: dict[str, Any]) -> Job:
    """What measures the record of this key."""
    names = ("name", "options", "size", "batch", "precision", "device", "materialised")
    kind = DetectorTraining if key.get("detector") else Training
    training = kind(**{name: key[name] for name in names})
    return Job(training, WarmUp(training))


def held_bytes(row: Row, size: int, batch: int) -> int:
    """What a training step keeps beside activations and gradients: weights, momentum, buffers, pictures."""
    return computed(replace(row, size=size)).held_bytes + 4 * batch * 3 * size * size
