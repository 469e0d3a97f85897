"""What mixes positions, without projections: ours, attention, convolutions; each as a function of tensors that learn.

local-127 …   lambda layers of that scope, content and position; global; content only; causal
fused         scaled_dot_product_attention (flash, where that kernel applies)
window        flex_attention within a window as wide as the scope, compiled
depthwise     a convolution of each channel as wide as the scope; dense: of all channels, 3 taps
copy          a copy of as many bytes as the local layer has to read and write
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks import peers
from benchmarks.measuring import NotInstalledError, WrongResultError
from benchmarks.methods import TOLERANCES, Case
from torch import Tensor

from lambda_seq import functional as LF
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem

Function = Callable[..., Tensor]
CHECKED = 384  # positions at which results are compared
BLOCK = 128  # positions of a block of flex_attention
TAPS = 3  # of the dense convolution


@dataclass(frozen=True)
class Core:
    """Something that mixes positions.

    Args:
        label: what tables call it.
        make: the function, and its tensors, of a case.
        exact: the function in float64, another way.
        growth: power of the number of positions that time grows with.
        variants: in which ways it computes in a case, as functions that apply at a small one too.
        learns: whether there is a backward pass.
        longest: positions up to which it is measured; beyond, it is predicted.
    """

    label: str
    make: Callable[[Case], tuple[Function, list[Tensor]]]
    exact: Callable[[Case], Function] | None = None
    growth: int = 1
    variants: Callable[[Case], Sequence[Function]] | None = None
    learns: bool = True
    longest: int = 2**23


def random(case: Case, *shape: int) -> Tensor:
    """A tensor that wants a gradient, in dtype and on the device of the case."""
    return torch.randn(*shape, device=case.device, dtype=getattr(torch, case.dtype)).requires_grad_()


def as_layers(case: Case, channels: int, depth: int) -> Tensor:
    """(B, channels, *N, depth), lying in memory as layers make it: (B, *N, channels, depth)."""
    tensor = random(case, case.batch, *case.size, channels, depth).detach()
    return tensor.movedim(-2, 1).requires_grad_()


# Ours


def lambda_tensors(kind: str, case: Case) -> list[Tensor]:
    """Query, key, value and, but for content alone, the embedding."""
    query, key = (as_layers(case, channels, case.dim_key) for channels in (case.heads, 1))
    value = as_layers(case, 1, case.dim // case.heads)
    if kind == "content":
        return [query, key, value]
    taps = [2 * length - 1 if kind == "global" else case.scope for length in case.size]
    return [query, key, value, random(case, 1, case.dim_key, *taps)]


def lambdas(kind: str, algorithm: str, *tensors: Tensor) -> Tensor:
    """The lambda layer by an algorithm."""
    query, key, value, *embedding = tensors
    causal, given = kind == "causal", embedding[0] if embedding else None
    return LF.lambda_layer(query, key, value, given, causal=causal, algorithm=algorithm)


def chosen(kind: str, case: Case) -> tuple[str, str]:
    """What "auto" takes in a case, forward and backward."""
    query, key, value, *embedding = lambda_tensors(kind, replace(case, device="meta"))
    given = embedding[0] if embedding else None
    plan = LF.plan(query, key, value, given, causal=kind == "causal", device=case.device)
    return plan.algorithm, plan.backward_algorithm


def content_chosen(kind: str, case: Case) -> tuple[str, ...]:
    """What "auto" takes for the content lambda, forward and backward."""
    query, key, value, *_ = lambda_tensors(kind, replace(case, device="meta"))
    return LF.plan(query, key, value, None, causal=kind == "causal", device=case.device).content_algorithms


def _ours(label: str, kind: str, scope: int | None = None, longest: int = 2**23) -> Core:
    def sized(case: Case) -> Case:
        return case if scope is None else replace(case, scope=scope)

    def variants(case: Case) -> list[Function]:
        names = [name for name in dict.fromkeys(chosen(kind, sized(case))) if _applies(name, kind, small(sized(case)))]
        return [partial(lambdas, kind, name) for name in names or ["auto"]]

    return Core(
        label,
        lambda case: (partial(lambdas, kind, "auto"), lambda_tensors(kind, sized(case))),
        lambda case: partial(lambdas, kind, "naive"),
        variants=variants,
        longest=longest,
    )


def _applies(algorithm: str, kind: str, case: Case) -> bool:
    if algorithm not in REGISTRY:
        return False
    query, key, value, embedding = lambda_tensors(kind, replace(case, device="meta"))
    problem = Problem.of(query, key, value, embedding, causal=kind == "causal").on(torch.device(case.device))
    return REGISTRY[algorithm].supports(problem.sizes, problem.device, problem.dtype) is None


# Attention


def heads_of(case: Case) -> list[Tensor]:
    """Query, key and value (B, heads, N, dim / heads)."""
    return [as_layers(case, case.heads, case.dim // case.heads) for _ in range(3)]


def flash(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Fused attention by the flash kernel, where that applies; else by whichever torch chooses."""
    if query.device.type != "cuda" or query.dtype == torch.float32:
        return F.scaled_dot_product_attention(query, key, value)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(query, key, value)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def window_mask(length: int, reach: int, device: str) -> Any:
    """The block mask of |m − n| ≤ reach, from its three diagonals of blocks, without looking at pairs of positions."""
    from torch.nn.attention.flex_attention import BlockMask

    blocks, beside = -(-length // BLOCK), -(-reach // BLOCK)
    place = torch.arange(blocks, device=device)
    first, last = (place - beside).clamp_min(0), (place + beside).clamp_max(blocks - 1)
    order = (first[:, None] + place) % blocks  # the blocks in the window, then those that are not looked at
    return BlockMask.from_kv_blocks(
        (last - first + 1).int()[None, None],
        order.int()[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=lambda b, h, q, k: (q - k).abs() <= reach,
        seq_lengths=(length, length),
    )


def window(case: Case) -> tuple[Function, list[Tensor]]:
    """Attention within a window, compiled."""
    if case.device == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError as error:
            raise NotInstalledError(f"pip install triton ({error})") from None
    mask, attend = window_mask(case.size[0], case.scope // 2, case.device), _compiled_flex()
    return lambda query, key, value: attend(query, key, value, block_mask=mask), heads_of(case)


def window_written_out(case: Case) -> Function:
    """The same with all weights and a mask."""
    place = torch.arange(case.size[0], device=case.device)
    return partial(peers.materialised, visible=(place[:, None] - place).abs() <= case.scope // 2)


# Convolutions, and the limit


def depthwise(case: Case) -> tuple[Function, list[Tensor]]:
    """Each channel with a kernel of its own."""
    convolve = partial(F.conv1d, padding=case.scope // 2, groups=case.dim)
    return convolve, [random(case, case.batch, case.dim, case.size[0]), random(case, case.dim, 1, case.scope)]


def dense(case: Case) -> tuple[Function, list[Tensor]]:
    """All channels with all."""
    convolve = partial(F.conv1d, padding=TAPS // 2)
    return convolve, [random(case, case.batch, case.dim, case.size[0]), random(case, case.dim, case.dim, TAPS)]


def moved_bytes(case: Case) -> int:
    """What the forward pass of a lambda layer has to read (queries, keys, values) and to write."""
    per_position = (case.heads + 1) * case.dim_key + case.dim // case.heads + case.dim
    return case.batch * case.positions * per_position * getattr(torch, case.dtype).itemsize


def copying(case: Case) -> tuple[Function, list[Tensor]]:
    """A copy of so many bytes, half of them read."""
    source = torch.ones(moved_bytes(case) // 2, dtype=torch.uint8, device=case.device)
    target = torch.empty_like(source)
    return lambda given: target.copy_(given), [source]


CORES = {
    "local-23": _ours("lambda, scope 23", "local", 23),
    "local-63": _ours("lambda, scope 63", "local", 63),
    "local-127": _ours("lambda, scope 127", "local", 127),
    "global": _ours("lambda, global", "global"),
    "content": _ours("lambda, content only", "content"),
    "causal": _ours("lambda, causal, scope 127", "causal", 127, longest=2**16),  # a loop over chunks in Python
    "fused": Core(
        "fused attention (flash)",
        lambda case: (flash, heads_of(case)),
        lambda case: peers.materialised,
        growth=2,
        longest=2**18,
    ),
    "window": Core("flex_attention, window 127", window, window_written_out, longest=2**16),
    "depthwise": Core(
        "depthwise convolution, 127 taps", depthwise, lambda case: depthwise(small(case))[0], longest=2**20
    ),
    "dense": Core("convolution, 3 taps (cuDNN)", dense, lambda case: dense(small(case))[0]),
    "copy": Core("limit: copy", copying, learns=False),
}


# Checking


def small(case: Case) -> Case:
    """The case at which results are compared."""
    return replace(case, size=tuple(min(length, CHECKED) for length in case.size))


def verify(core: Core, case: Case) -> float | None:
    """Compare output and gradients with those in float64, at a small size; the greatest relative error.

    Raises:
        WrongResultError: it is more than the dtype allows.
    """
    if core.exact is None:
        return None
    torch.manual_seed(2102)
    near = small(case)
    function, tensors = core.make(near)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = core.exact(near)(*exact)
    grad = torch.randn_like(expected).to(tensors[0].dtype)
    wanted = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    worst = 0.0
    for candidate in [function] if core.variants is None else core.variants(case):
        output = candidate(*tensors)
        found = [output, *torch.autograd.grad(output, tensors, grad)]
        names = ["output", *(f"gradient {index}" for index in range(len(tensors)))]
        for name, one, other in zip(names, found, wanted, strict=True):
            one, other = one.detach().double(), other.detach()
            off = float((one - other).norm() / other.norm().clamp_min(1e-30))
            if not off <= TOLERANCES[case.dtype]:  # NaN is wrong too
                raise WrongResultError(
                    f"{name} is off by {off:.1e} relative to float64, {TOLERANCES[case.dtype]:.0e} is allowed"
                )
            worst = max(worst, off)
    return worst
