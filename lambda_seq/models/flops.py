"""FLOPS of a network by the paper's rule, from shapes alone."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from lambda_seq.layers import LambdaLayer
from lambda_seq.layers.attention import Attention

# Not torch.utils.flop_counter.FlopCounterMode: it counts the products that it sees computed. Of position lambdas, which
# are operators of this package, those are none, or with algorithm="naive" more than the definition has; of a causal
# scan those of its chunks. The paper counts the definition. Of convolutions and linear layers both find the same.


def count_flops(model: nn.Module, x: Tensor) -> int:
    """2 × multiply-adds of the convolutions, linear, lambda and attention layers of `model` for the input x.

    A lambda layer over n positions costs, beside its projections, u·n·r·k·v for the position lambdas (r positions in
    scope, clipped to the input and borders not subtracted), u·n·k·v for the content lambda, and n·h·k·v to apply
    each of the two: the definition in lambda order (Bello 2021), whatever algorithm computes it. Attention costs the
    products of its equation: `Attention.multiply_adds`. Norms, activations and pools are not counted. Runs on the meta
    device: neither weights nor activations are computed or copied.

    Args:
        model: any network; left as it is.
        x: an input; only shape and dtype matter, so `torch.empty(1, 3, 224, 224, device="meta")` will do.
    """
    # A twin whose weights are shapes only: deepcopy takes what the memo already holds.
    shapes: dict[int, object] = {id(weight): nn.Parameter(weight.to("meta")) for weight in model.parameters()}
    shapes |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    twin = copy.deepcopy(model, shapes).eval()
    counts: list[int] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(multiply_adds(module, inputs[0], output))

    for module in twin.modules():
        module.register_forward_hook(hook)
    with torch.no_grad():
        twin(x.to("meta"))
    return 2 * sum(counts)


def multiply_adds(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Multiply-adds of one module itself, its children left out; 0 for kinds that are not counted."""
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return output.numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        return x.numel() * module.out_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, LambdaLayer):
        size = output.shape[2:] if module.dims == 2 else output.shape[1:-1]
        applied = output.shape[0] * math.prod(size) * module.dim_key * module.dim_value  # B·n·k·v
        count = 0
        if module.content:
            count += applied * (module.dim_intra + module.heads)
        if module.position is not None:
            offsets = module.position(size).shape[2:]
            in_scope = math.prod(min(taps, length) for taps, length in zip(offsets, size, strict=True))
            count += applied * (module.dim_intra * in_scope + module.heads)
        return count
    if isinstance(module, Attention):
        return output.shape[0] * module.multiply_adds(output.shape[2:])
    return 0
