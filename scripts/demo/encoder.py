"""The memory demo's layers in the blocks of one encoder, and what is measured of layers and encoders."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.measuring import Step
from benchmarks.methods import Case, as_it_is, new_layer, prepare_layer, verify_layer
from torch import Tensor, nn

from demo.layers import METHODS
from lambda_seq.models import LambdaEncoder
from lambda_seq.models.sequence.blocks import LambdaMixing

DEPTH, CLASSES, BYTES = 2, 10, 257
CHECKED = {1: 140, 2: 18}  # positions per dimension at which results are checked, longer than the default scopes


class Adapter(nn.Module):
    """A layer in a block of sequences, (B, H·W, dim) for images."""

    def __init__(self, inner: nn.Module, case: Case) -> None:
        super().__init__()
        self.inner, self.size = inner, case.size
        self.dim = self.dim_out = case.dim

    def forward(self, x: Tensor, mask: Tensor | None = None, documents: object = None) -> Tensor:
        """(B, N, dim) to the same."""
        if len(self.size) == 1:
            return self.inner(x)
        return self.inner(x.mT.unflatten(2, self.size)).flatten(2).mT


class Body(nn.Module):
    """The blocks of an encoder and their last norm, on inputs as layers take them; for checks."""

    def __init__(self, encoder: LambdaEncoder) -> None:
        super().__init__()
        self.blocks, self.norm = encoder.blocks, encoder.norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) or (B, dim, H, W) to (B, N, dim) or (B, dim, H, W)."""
        if x.ndim == 3:
            return self.norm(self.blocks(x))
        return self.norm(self.blocks(x.flatten(2).mT)).mT.unflatten(2, x.shape[2:])


def encoder(name: str, case: Case, **options: Any) -> LambdaEncoder:
    """An encoder of bytes, with this layer in its blocks; all else is equal, but norms of lambdas."""
    chosen = {"num_classes": CLASSES, "depth": DEPTH, **options}
    model = LambdaEncoder(dim=case.dim, heads=case.heads, position=False, **chosen)
    lambdas = METHODS[name].ours or name == "published"
    for block in model.blocks:
        out = block.mixing.out
        block.mixing = LambdaMixing(Adapter(METHODS[name].build(case), case), "batch" if lambdas else "none")  # type: ignore[arg-type]
        block.mixing.out = out
    return model


def body(name: str, case: Case) -> Body:
    """What of the encoder is checked."""
    return Body(encoder(name, case))


def body_twin(name: str, model: Body, case: Case) -> Body:
    """The same with the references of the layers, in float64."""
    twin = copy.deepcopy(model).double()
    for block, original in zip(twin.blocks, model.blocks, strict=True):
        adapter: Any = block.mixing.layer
        adapter.inner = METHODS[name].twin(original.mixing.layer.inner, case)
    return twin


# What is measured


def verify_in_layer(name: str, case: Case) -> None:
    """Compare the layer with its reference; raises WrongResultError."""
    method = METHODS[name]
    verify_layer(method.build, method.twin, method.variants, case, most=CHECKED[len(case.size)])


def verify_in_encoder(name: str, case: Case) -> None:
    """Compare the encoder's blocks with those of reference layers, in float64: precisions are the layer's matter."""
    double = replace(case, dtype="float64")
    verify_layer(
        partial(body, name),
        partial(body_twin, name),
        as_it_is,
        double,
        most=CHECKED[len(case.size)],
        tolerance=1e-8,
        least=1e-3,
    )


def step_of_layer(name: str, case: Case) -> Step:
    """A training step of the layer: gradients of its input and weights."""
    return prepare_layer(METHODS[name].build, case)


def step_of_encoder(name: str, case: Case) -> Step:
    """A training step of the encoder: gradients of a batch of byte sequences, and AdamW."""
    model = new_layer(partial(encoder, name), case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(BYTES, (case.batch, math.prod(case.size)), device=case.device)
    labels = torch.randint(CLASSES, (case.batch,), device=case.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(tokens).float(), labels).backward()
        optimizer.step()

    return step
