"""What the benchmarks compare: our layer, attention, what pip installs, and the limits of the machine.

Each layer comes with its projections; one step of it is forward and backward for a batch of inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measuring import NotInstalledError, Step
from benchmarks.methods import Case, Method, layer_method
from lambda_seq import LambdaLayer1d, LambdaLayer2d
from lambda_seq import functional as LF

Ours = LambdaLayer1d | LambdaLayer2d
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # three (B, heads, N, dim / heads) to one

# Ours


def ours(kind: str, case: Case) -> Ours:
    """Our layer: "local", "global" or "content" only; for sequences or images by the case."""
    options: dict[str, Any] = {"heads": case.heads, "dim_key": case.dim_key, "position": kind != "content"}
    scope = None if kind == "global" else case.scope
    is_global = scope is None  # whose table needs the largest input
    if len(case.size) == 1:
        return LambdaLayer1d(case.dim, scope=scope, max_length=case.size[0] if is_global else None, **options)
    height, width = case.size
    return LambdaLayer2d(case.dim, scope=scope, max_size=(height, width) if is_global else None, **options)


def ours_chosen(layer: Ours, case: Case) -> list[nn.Module]:
    """Our layer with each algorithm that "auto" takes at the size of the case."""
    if layer.position is None:
        return [layer]
    plan = ours_plan(layer, case)
    return [ours_by(algorithm, layer, case) for algorithm in {plan.algorithm, plan.backward_algorithm}]


def ours_by(algorithm: str, layer: Ours, case: Case) -> nn.Module:
    """The same layer by another algorithm; by "naive", the definition, in float64."""
    twin = copy.deepcopy(layer)
    twin.algorithm = algorithm
    return twin.double() if algorithm == "naive" else twin


def ours_plan(layer: Ours, case: Case) -> LF.Plan:
    """What our layer does in this case."""
    position: Any = layer.position
    meta: dict[str, Any] = {"device": "meta", "dtype": getattr(torch, case.dtype)}
    query = torch.empty(case.batch, case.heads, *case.size, case.dim_key, **meta)
    value = torch.empty(case.batch, 1, *case.size, case.dim // case.heads, **meta)
    taps = position.taps if position.max_size is None else [2 * length - 1 for length in case.size]
    embedding = torch.empty(1, case.dim_key, *taps, **meta)
    return LF.plan(query, None, value, embedding, device=case.device)


# Attention


class Attention(nn.Module):
    """Queries, keys and values by one product without bias, as many channels out; nothing after the attention.

    `attend` maps three tensors (B, heads, N, dim / heads) to one.
    """

    def __init__(self, case: Case, attend: Attend) -> None:
        super().__init__()
        self.heads, self.attend = case.heads, attend
        self.project = nn.Linear(case.dim, 3 * case.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.attend(query, key, value).transpose(1, 2).flatten(2)


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Torch's own attention: linear memory, quadratic time."""
    return F.scaled_dot_product_attention(query, key, value)


def materialised(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attention by its formula, with all N × N weights in memory."""
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ value


def attention(attend: Attend, case: Case) -> nn.Module:
    """A layer of attention."""
    return Attention(case, attend)


def attention_by(attend: Attend, layer: nn.Module, case: Case) -> nn.Module:
    """The same layer with another function."""
    twin = Attention(case, attend)
    twin.load_state_dict(layer.state_dict())
    return twin.to(case.device).double()


# Local attention: `exact` sees |m − n| ≤ w, 2w + 1 positions; else the own block of w and its two neighbours, 3w.


def window(exact: bool, case: Case) -> int:
    """Width w with which a query sees as many positions as the scope has, or up to two fewer."""
    return max(1, (case.scope - 1) // 2 if exact else case.scope // 3)


def local_attention(exact: bool, case: Case) -> nn.Module:
    """The package local-attention, without rotary embeddings, behind the same projections."""
    try:
        from local_attention import LocalAttention
    except ImportError as error:
        raise NotInstalledError(f"pip install local-attention ({error})") from None
    return Attention(case, LocalAttention(window(exact, case), autopad=True, exact_windowsize=exact))


def local_attention_written_out(exact: bool, layer: Any, case: Case) -> nn.Module:
    """The same layer with a mask; the package lets queries see the zeros that it pads with."""
    return attention_by(partial(_windowed, window(exact, case), exact), layer, case)


def _windowed(width: int, exact: bool, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    count = query.shape[2]
    query, key, value = (F.pad(tensor, (0, 0, 0, -count % width)) for tensor in (query, key, value))
    place = torch.arange(query.shape[2], device=query.device)
    if exact:
        visible = (place[:, None] - place).abs() <= width
    else:
        visible = (place[:, None] // width - place // width).abs() <= 1
    return materialised(query, key, value, visible)[:, :, :count]


# The published lambda layer


def lambda_networks(kind: str, case: Case) -> nn.Module:
    """The package lambda-networks: images, a local scope by a 3D convolution or a global one of gathered embeddings."""
    try:
        from lambda_networks import LambdaLayer
    except ImportError as error:
        raise NotInstalledError(f"pip install lambda-networks ({error})") from None
    scope = {"r": case.scope} if kind == "local" else {"n": case.size[0]}
    layer = LambdaLayer(case.dim, dim_k=case.dim_key, heads=case.heads, **scope)
    if kind == "local":
        nn.init.zeros_(layer.pos_conv.bias)  # the definition has none
    for norm in (layer.norm_q, layer.norm_v):
        norm.register_full_backward_pre_hook(_contiguous)
    return layer


def _contiguous(norm: nn.Module, grads: Any) -> Any:
    """For one image torch's batch norm takes a gradient that lies channels last for one that does not (CPU, 2.13)."""
    return tuple(grad.contiguous() for grad in grads)


def lambda_networks_by_ours(kind: str, layer: Any, case: Case) -> nn.Module:
    """The definition with the package's weights."""
    twin: Any = ours(kind, case)
    if kind == "local":
        embedding = layer.pos_conv.weight.permute(1, 0, 2, 3, 4).squeeze(2)  # (1, K, R, R)
    else:
        embedding = layer.rel_pos_emb.permute(3, 2, 0, 1)  # (1, K, 2H − 1, 2W − 1)
    with torch.no_grad():
        projections = [getattr(layer, name).weight.flatten(1) for name in ("to_q", "to_v", "to_k")]
        twin.project.weight.copy_(torch.cat(projections))
        twin.position.weight.copy_(embedding)
    return ours_by("naive", twin, case).to(case.device)


# Limits of the machine


def multiply_adds(case: Case) -> float:
    """Multiply-adds of a step of our local layer: projections, content, and what the plan takes for positions."""
    with torch.device("meta"):
        plan = ours_plan(ours("local", case), case)
    named = {candidate.name: candidate for candidate in plan.candidates}
    forward = named[plan.algorithm].multiply_adds[0]
    backward = named[plan.backward_algorithm].multiply_adds[1]
    dim_value = case.dim // case.heads
    projections = case.dim * (case.heads * case.dim_key + case.dim_key + dim_value)
    content = case.dim_key * dim_value * (1 + case.heads)
    return forward + backward + 3 * case.batch * case.positions * (projections + content)


def products(case: Case) -> Step:
    """One matrix product of the same multiply-adds as a step of our local layer, of a shape that torch is fast at."""
    side = 1024
    options = {"dtype": getattr(torch, case.dtype), "device": case.device}
    left = torch.randn(max(1, round(multiply_adds(case) / side**2)), side, **options)
    right = torch.randn(side, side, **options)
    result = left @ right
    return lambda: torch.mm(left, right, out=result)


def copying(case: Case) -> Step:
    """A copy of the bytes that no layer can do without: x twice, the output, its gradient and the gradient of x."""
    numbers = -(-5 * case.numbers // 2)  # half of them read, half written
    source = torch.ones(numbers, dtype=getattr(torch, case.dtype), device=case.device)
    target = torch.ones_like(source)
    return lambda: target.copy_(source)


def nothing_to_verify(case: Case) -> None:
    """Limits have no result."""


METHODS = {
    "local": layer_method("lambda, local", partial(ours, "local"), partial(ours_by, "naive"), ours_chosen),
    "global": layer_method("lambda, global", partial(ours, "global"), partial(ours_by, "naive"), ours_chosen),
    "content": layer_method("lambda, content only", partial(ours, "content"), partial(ours_by, "naive"), ours_chosen),
    "fused": layer_method("fused attention", partial(attention, fused), partial(attention_by, materialised), growth=2),
    "materialised": layer_method(
        "materialised attention",
        partial(attention, materialised),
        partial(attention_by, fused),
        growth=2,
        memory_growth=2,
    ),
    "local-attention": layer_method(
        "local-attention, exact window",
        partial(local_attention, True),
        partial(local_attention_written_out, True),
    ),
    "local-attention-blocks": layer_method(
        "local-attention, three blocks",
        partial(local_attention, False),
        partial(local_attention_written_out, False),
    ),
    "lambda-networks": layer_method(
        "lambda-networks, local",
        partial(lambda_networks, "local"),
        partial(lambda_networks_by_ours, "local"),
    ),
    "lambda-networks-global": layer_method(
        "lambda-networks, global",
        partial(lambda_networks, "global"),
        partial(lambda_networks_by_ours, "global"),
        growth=2,
        memory_growth=2,
    ),
    "products": Method("limit: matrix products", products, nothing_to_verify, limit=True),
    "copy": Method("limit: copy", copying, nothing_to_verify, limit=True),
}
