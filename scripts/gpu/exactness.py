"""Section exactness: every algorithm against the definition, layers against themselves, and past 2³¹ elements.

In float32 an error is relative to the greatest number of what is right, 1e-5 at most; in half precisions it may be
twice that of the definition in the same precision, both against float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from benchmarks.measuring import WrongResultError
from benchmarks.recording import Record
from benchmarks.reporting import Table, seconds, size
from torch import Tensor

from gpu.running import Part, Section, Settings
from lambda_seq import LambdaLayer1d, LambdaLayer2d
from lambda_seq import functional as LF
from lambda_seq.functional.algorithm import REGISTRIES
from lambda_seq.functional.calibration import errors, sizes_of
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem

ALLOWED = {"float64": 1e-10, "float32": 1e-5}
TWICE = 2.0  # the error of the definition, or one rounding
PAST = 2**31 + 2**20  # elements of an output
LONGEST = 10.0  # seconds that it may take by the plan: n² is out of the question
CONTENT = ("content", "scan")  # parts of the layer whose registries have shapes of their own
SHORT = 1000  # positions of those that a CPU takes
HEADS, DIM_KEY, DIM_VALUE, SCOPE, TAIL = 4, 16, 64, 23, 600  # of it; its last positions are compared


class Shape(NamedTuple):
    """A problem that algorithms are compared in."""

    size: tuple[int, ...]
    scope: tuple[int, ...] | None
    batch: int = 2
    heads: int = 3
    intra: int = 1
    dim_key: int = 8
    dim_value: int = 12
    causal: bool = False
    hidden: float = 0.0


SHAPES = {
    "odd length": Shape((333,), (31,)),
    "wider than the input": Shape((61,), (201,)),
    "scope 127": Shape((1000,), (127,), heads=4, dim_key=16, dim_value=64),
    "scope 1": Shape((90,), (1,)),
    "global": Shape((257,), (513,)),
    "masked, intra-depth": Shape((200,), (9,), intra=3, hidden=0.4),
    "causal": Shape((300,), (40,), causal=True, hidden=0.2),
    "causal, global": Shape((150,), (150,), causal=True),
    "image": Shape((19, 26), (7, 5), intra=2),
    "image, scope 23, masked": Shape((28, 28), (23, 23), heads=4, dim_key=16, dim_value=16, hidden=0.3),
    "image, global": Shape((9, 14), (17, 27)),
}
TINY = {
    "masked, intra-depth": Shape((41,), (9,), intra=2, hidden=0.4),
    "causal": Shape((50,), (8,), causal=True, hidden=0.2),
    "image": Shape((6, 7), (3, 5)),
}
LAYERS: dict[str, dict[str, Any]] = {
    "local": {"scope": 31},
    "global": {"scope": None, "max_length": 300},
    "multi-scale": {"scope": None, "position": "multiscale"},
    "causal": {"scope": 31, "causal": True},
    "causal, exponential": {"scope": None, "position": "exponential", "causal": True},
    "intra-depth, l2": {"scope": 9, "dim_intra": 2, "key_norm": "l2"},
}


def cells(settings: Settings) -> list[Record]:
    """Algorithms in each dtype, those of the content lambda, too, layers, then lengths past 2³¹ elements."""
    dtypes = ("float32", "bfloat16", "float16", "float64") if settings.device == "cuda" else ("float32", "bfloat16")
    names = ["auto", *REGISTRY]
    found: list[Record] = [
        {"what": "algorithm", "name": name, "dtype": dtype}
        for dtype in dtypes
        for name in (names if dtype == dtypes[0] else settings.sized(names, names[:1]))
    ]
    found += [
        {"what": part, "name": name, "dtype": dtype}
        for part in CONTENT
        for name in REGISTRIES[part]
        for dtype in settings.sized(dtypes[:3], dtypes[:1])
    ]
    found += [{"what": "layer", "name": name} for name in settings.sized((*LAYERS, "image"), ("causal", "image"))]
    return found + [{"what": "long", "name": name} for name in settings.sized(["content", *names], ["content", "auto"])]


def run(key: Record, settings: Settings) -> Record:
    """One of them; wrong results are raised."""
    torch.manual_seed(2021)
    if key["what"] == "algorithm":
        return algorithm(key["name"], getattr(torch, key["dtype"]), settings)
    if key["what"] in CONTENT:
        return of_content(key["what"], key["name"], getattr(torch, key["dtype"]), settings)
    if key["what"] == "layer":
        return layer(key["name"], settings)
    return past(key["name"], settings)


# Algorithms


def tensors_of(shape: Shape, dtype: torch.dtype, device: str) -> tuple[list[Tensor], Tensor, dict[str, Any]]:
    """Query, key, value and embedding; a gradient for the output; the other arguments."""

    def randn(*sizes: int) -> Tensor:
        return torch.randn(*sizes, dtype=torch.float64, device=device).to(dtype).requires_grad_()

    batch, positions = shape.batch, shape.size
    mask = None
    if shape.hidden:
        mask = torch.rand(batch, *positions, device=device) >= shape.hidden
    tensors = [
        randn(batch, shape.heads, *positions, shape.dim_key),
        randn(batch, shape.intra, *positions, shape.dim_key),
        randn(batch, shape.intra, *positions, shape.dim_value),
        randn(shape.intra, shape.dim_key, *(shape.scope or ())),
    ]
    grad = torch.randn(batch, shape.heads, *positions, shape.dim_value, dtype=torch.float64, device=device)
    if mask is not None:
        grad = grad * mask[:, None, ..., None]
    return tensors, grad, {"mask": mask, "causal": shape.causal}


def results(name: str, tensors: Sequence[Tensor], grad: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    """Output, zero where masked, and gradients, in float64."""
    output = LF.lambda_layer(*tensors, algorithm=name, **options)
    if options["mask"] is not None:
        output = output * options["mask"][:, None, ..., None]
    gradients = torch.autograd.grad(output, list(tensors), grad.to(output.dtype))
    names = ("output", "gradient of query", "gradient of key", "gradient of value", "gradient of embedding")
    return {name: one.detach().double() for name, one in zip(names, (output, *gradients), strict=True)}


def off(found: Tensor, right: Tensor) -> float:
    """The greatest error, relative to the greatest number of what is right."""
    found, right = found.detach(), right.detach()
    return float((found - right).abs().max() / right.abs().max().clamp_min(1e-300))


def algorithm(name: str, dtype: torch.dtype, settings: Settings) -> Record:
    """Compare an algorithm with the definition in all shapes to which it applies.

    Raises:
        WrongResultError: it is further off than allowed.
    """
    worst, times, applied, reasons = 0.0, 0.0, [], {}
    for title, shape in settings.sized(SHAPES, TINY).items():
        tensors, grad, options = tensors_of(shape, dtype, settings.device)
        reason = why_not(name, tensors, options)
        if reason is not None:
            reasons[title] = reason
            continue
        exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
        right = results("naive", exact, grad, options)
        found = results(name, tensors, grad, options)
        words = str(dtype).removeprefix("torch.")
        plain = None if words in ALLOWED else results("naive", tensors, grad, options)
        for what, one in found.items():
            error = off(one, right[what])
            allowed = ALLOWED.get(words, 0.0)
            if plain is not None:
                allowed = TWICE * max(off(plain[what], right[what]), torch.finfo(dtype).eps)
            if not error <= allowed:  # NaN is wrong too
                raise WrongResultError(f"{title}: {what} is off by {error:.1e}, {allowed:.1e} is allowed")
            worst, times = max(worst, error), max(times, error / allowed)
        applied.append(title)
    if not applied:
        return {"status": "not run", "message": "; ".join(dict.fromkeys(reasons.values()))}
    return {"off": worst, "share": times, "shapes": len(applied), "reasons": sorted(set(reasons.values()))}


def of_content(part: str, name: str, dtype: torch.dtype, settings: Settings) -> Record:
    """Compare an algorithm of the content lambda with the definition in the shapes that kernels are tried by.

    Raises:
        WrongResultError: it is further off than allowed.
    """
    registry, device = REGISTRIES[part], torch.device(settings.device)
    worst, applied, reasons = 0.0, 0, list[str]()
    for shape in registry.right:
        if settings.device == "cpu" and shape.X > SHORT:
            continue
        reason = registry[name].supports(sizes_of(registry, shape), device, dtype)
        if reason is not None:
            reasons.append(reason)
            continue
        for what, error, allowed in errors(registry[name], registry.case(shape, device, dtype), dtype):
            if not error <= allowed:  # NaN is wrong too
                title = f"{shape.X} positions, {shape.key_norm}"
                raise WrongResultError(f"{title}: {what} is off by {error:.1e}, {allowed:.1e} is allowed")
            worst = max(worst, error)
        applied += 1
    if not applied:
        return {"status": "not run", "message": "; ".join(dict.fromkeys(reasons))}
    return {"off": worst, "shapes": applied, "reasons": sorted(set(reasons))}


def why_not(name: str, tensors: Sequence[Tensor], options: dict[str, Any]) -> str | None:
    """Why an algorithm does not apply; None if it does."""
    if name not in REGISTRY:
        return None
    query, key, value, embedding = tensors
    problem = Problem.of(query, key, value, embedding, options["mask"], options["causal"])
    return REGISTRY[name].supports(problem.sizes, problem.device, problem.dtype)


# Layers


def layer(name: str, settings: Settings) -> Record:
    """A layer on the device: as on the CPU, padding changes nothing, and steps give what the whole gives.

    Raises:
        WrongResultError: one of these is not so.
    """
    torch.manual_seed(2021)
    if name == "image":
        made: Any = LambdaLayer2d(16, scope=(7, 5))
        x = torch.randn(2, 16, 21, 18)
        return {"checks": {"as on the CPU": _as_on_cpu(made, x, settings)}}
    made = LambdaLayer1d(16, heads=4, dim_key=8, **({"norm": "rms"} | LAYERS[name]))
    x = torch.randn(2, 200, 16)
    checks = {"as on the CPU": _as_on_cpu(made, x, settings)}
    there = copy.deepcopy(made).to(settings.device).train()
    x = x.to(settings.device)
    padded = torch.cat([x, torch.full_like(x[:, :37], 1e3)], 1)
    mask = (torch.arange(padded.shape[1], device=x.device) < x.shape[1]).expand(2, -1)
    checks["padding changes nothing"] = off(there(padded, mask)[:, : x.shape[1]].double(), there(x).double())
    if made.causal:
        there.eval()
        with torch.no_grad():
            state, outputs = there.init_state(2), []
            for piece in (x[:, :64], x[:, 64:65], x[:, 65:]):
                output, state = there.step(piece, state)
                outputs.append(output)
            checks["steps as the whole"] = off(torch.cat(outputs, 1).double(), there(x).double())
    for what, error in checks.items():
        if not error <= 1e-4:
            raise WrongResultError(f"{what}: off by {error:.1e}, 1e-04 is allowed in float32")
    return {"checks": checks}


def _as_on_cpu(made: Any, x: Tensor, settings: Settings) -> float:
    """How far output and gradients are from those of a copy on the CPU in float64."""
    grad = torch.randn_like(made.eval()(x))
    worst, right = 0.0, list[Tensor]()
    for device, dtype in (("cpu", torch.float64), (settings.device, torch.float32)):
        there = copy.deepcopy(made).to(device, dtype)
        given = x.to(device, dtype).requires_grad_()
        output = there(given)
        gradients = torch.autograd.grad(output, [given, *there.parameters()], grad.to(device, dtype))
        found = [one.detach().double().cpu() for one in (output, *gradients)]
        if not right:
            right = found
        worst = max(off(one, other) for one, other in zip(found, right, strict=True))
    if not worst <= 1e-4:
        raise WrongResultError(f"as on the CPU: off by {worst:.1e}, 1e-04 is allowed in float32")
    return worst


# Past 2³¹ elements


def past(name: str, settings: Settings) -> Record:
    """An output of more than 2³¹ elements: its end, and the gradients there, as of the end alone.

    Raises:
        WrongResultError: they differ.
    """
    device, dtype = settings.device, torch.bfloat16 if settings.device == "cuda" else torch.float32
    length = settings.sized(PAST // (HEADS * DIM_VALUE), 3000)
    if device == "cuda":
        needed, (free, _) = 24 * 2**30, torch.cuda.mem_get_info()
        if free < needed:
            return {"status": "not run", "message": f"needs {size(needed)}, {size(free)} are free"}
    query = torch.randn(1, length, HEADS, DIM_KEY, device=device, dtype=dtype).transpose(1, 2)
    value = torch.randn(1, length, 1, DIM_VALUE, device=device, dtype=dtype).transpose(1, 2)
    if name == "content":
        return past_of_content(query, value, dtype)
    embedding = torch.randn(1, DIM_KEY, SCOPE, device=device, dtype=dtype)
    reason = why_not(name, [query, query[:, :1], value, embedding], {"mask": None, "causal": False})
    if reason is not None:
        return {"status": "not run", "message": reason}
    plan = LF.plan(query, None, value, embedding)
    expected = sum(sum(one.seconds) for one in plan.candidates if one.name == name)
    if expected > LONGEST:
        return {"status": "not run", "message": f"would take {seconds(expected)}"}
    leaves = [tensor.requires_grad_() for tensor in (query, value, embedding)]
    output = LF.lambda_layer(leaves[0], None, leaves[1], leaves[2], algorithm=name)
    grad = torch.zeros_like(output)
    grad[:, :, -TAIL:].normal_()
    found = torch.autograd.grad(output, leaves, grad)
    reach = SCOPE // 2
    ends = [tensor.detach()[:, :, -TAIL - reach :] for tensor in (query, value)]
    exact = [tensor.double().requires_grad_() for tensor in (*ends, embedding.detach())]
    plain = [tensor.detach().requires_grad_() for tensor in (*ends, embedding.detach())]
    errors, twice = list[Tensor](), list[Tensor]()
    for tensors, kept in ((exact, errors), (plain, twice)):
        short = LF.lambda_layer(tensors[0], None, tensors[1], tensors[2], algorithm="naive")
        gradients = torch.autograd.grad(short, tensors, grad[:, :, -TAIL - reach :].to(short.dtype))
        kept += [short[:, :, -TAIL:].detach().double(), *(one.double() for one in gradients)]
    ours = [output[:, :, -TAIL:], found[0][:, :, -TAIL - reach :], found[1][:, :, -TAIL - reach :], found[2]]
    worst = 0.0
    for what, one, right, low in zip(("output", "query", "value", "embedding"), ours, errors, twice, strict=True):
        error = off(one.detach().double(), right)
        allowed = TWICE * max(off(low, right), torch.finfo(dtype).eps) if dtype == torch.bfloat16 else 1e-5
        if not error <= allowed:
            raise WrongResultError(f"{what} is off by {error:.1e}, {allowed:.1e} is allowed")
        worst = max(worst, error)
    return {"off": worst, "elements": output.numel()}


def past_of_content(query: Tensor, value: Tensor, dtype: torch.dtype) -> Record:
    """The same of a content lambda: the end as by sums in float64, part by part."""
    key = query[:, :1].contiguous()
    output = LF.lambda_layer(query, key, value, None)
    sums, norm = 0.0, 0.0
    for keys, values in zip(key[0, 0].split(2**20), value[0, 0].split(2**20), strict=True):
        weights = keys.double().exp()  # normal numbers: no maximum is needed
        sums, norm = sums + weights.mT @ values.double(), norm + weights.sum(0)
    right = query[:, :, -TAIL:].double() @ (sums / norm[:, None])  # type: ignore[index]
    error = off(output[:, :, -TAIL:].double(), right)
    allowed = 4 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-5
    if not error <= allowed:
        raise WrongResultError(f"output is off by {error:.1e}, {allowed:.1e} is allowed")
    return {"off": error, "elements": output.numel()}


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """A table of algorithms by dtype, one of layers, and what was found past 2³¹ elements."""
    by = {(one["key"]["name"], one["key"]["dtype"]): one for one in records if "dtype" in one["key"]}
    dtypes = list(dict.fromkeys(dtype for _, dtype in by))
    rows = [
        (name, *(_said(by[name, dtype]) if (name, dtype) in by else "" for dtype in dtypes))
        for name in dict.fromkeys(name for name, _ in by)
    ]
    title = "Greatest error of output and gradients against the definition in float64 (shapes compared)"
    yield Table(title, ("algorithm", *dtypes), tuple(rows))
    rows = [
        (one["key"]["name"], "; ".join(f"{what}: {error:.1e}" for what, error in one["checks"].items()))
        if "checks" in one
        else (one["key"]["name"], f"{one['status']}: {one['message']}")
        for one in records
        if one["key"]["what"] == "layer"
    ]
    yield Table("Layers, greatest error in float32", ("layer", "against"), tuple(rows))
    rows = [
        (one["key"]["name"], _said(one), f"{one.get('elements', 0):,}")
        for one in records
        if one["key"]["what"] == "long"
    ]
    yield Table(
        "An output of more than 2³¹ elements: error at its end", ("algorithm", "error", "elements"), tuple(rows)
    )


def _said(record: Record) -> str:
    if "off" in record:
        shapes = f" ({record['shapes']})" if "shapes" in record else ""
        return f"{record['off']:.1e}{shapes}"
    return f"{record['status']}: {record['message']}"


SECTION = Section("exactness", "Exactness", 65, cells, run, parts)
