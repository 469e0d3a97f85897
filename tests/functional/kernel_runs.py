"""What a process with Triton does for the tests: run kernels beside the definition.

Triton reads as it is imported whether to interpret kernels, so processes of their own do both.
"""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from unittest import mock

import pytest
import torch
from problems import make, relative
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lambda_seq import functional as LF
from lambda_seq.functional import calibration, launching, operators
from lambda_seq.functional.algorithm import REGISTRIES
from lambda_seq.functional.position import triton_lambdas, triton_weights
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install triton"
)
LONG = 1000  # positions, for the interpreter
PROGRAMS = 3  # that share a sum: few, as the interpreter runs one after another


def mode() -> str | None:
    """How this process runs kernels; Triton reads it as it is imported."""
    torch.use_deterministic_algorithms(True)  # new memory is NaN
    torch.set_num_threads(1)
    if os.environ.get("TRITON_INTERPRET") == "1":
        prepare_once()
    return os.environ.get("TRITON_INTERPRET")


def prepare_once():
    """Functions that a kernel calls find the language prepared: the interpreter does it again for each call.

    Private to Triton, which has no public way to say so; without it tests take half as long again.
    """
    from triton.runtime import interpreter

    prepare, execute, done = interpreter._patch_lang, interpreter.GridExecutor.__call__, set()

    def unless_done(function):
        modules = tuple(name for name in ("tl", "core") if name in function.__globals__)
        if modules in done:
            return None
        done.add(modules)
        return prepare(function)

    def begin(*arguments, **options):
        done.clear()
        return execute(*arguments, **options)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = unless_done, begin


@contextmanager
def process(interpret):
    """A process that imports Triton with this variable, which no other test sees; gives what calls functions there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            if interpret is None:
                patch.delenv("TRITON_INTERPRET", raising=False)
            else:
                patch.setenv("TRITON_INTERPRET", interpret)
            assert pool.submit(mode).result() == interpret
        yield lambda function, *arguments, **options: pool.submit(function, *arguments, **options).result()


def check(errors, dtype, rounded=0.0):
    """Errors by name: (the kernel's, those of the definition in this dtype).

    Where a softmax sees one key alone, its gradient is a rest of much greater numbers, in the definition as well.
    """
    for name, (error, usual) in errors.items():
        bound = max(1e-5, 10 * usual) if dtype == torch.float32 else 2 * usual + rounded
        assert error <= bound, f"{name}: {error:.2g}, usual {usual:.2g}"


# Beside the definition


def compare(name, options, dtype, device="cpu", rows=None, programs=PROGRAMS):
    """Errors of output and gradients against the definition in float64: the kernel's, and the definition's in dtype.

    Args:
        name: of an algorithm of the position lambda, or "content": "auto", where no other than kernels may be taken.
        options: of the problem.
        dtype, device: of its tensors.
        rows: of a tile, where not the kernels' own.
        programs: that share a sum.
    """
    inputs, exact, plain = expected(options, dtype, device)
    found = run(inputs, name, rows, programs)
    if inputs.mask is None:  # else they are multiplied by it
        # As results of all algorithms lie in memory; a content lambda beside is of torch's operations
        for key, tensor in ((key, tensor) for key, tensor in found.items() if key != "key" or name == "content"):
            assert (tensor if key == "embedding" else tensor.movedim(1, -2)).is_contiguous(), key
    return {key: (relative(found[key], exact[key]), relative(plain[key], exact[key])) for key in exact}


def twice(name, options, dtype, device="cpu"):
    """Names of what two runs do not give bit for bit."""
    inputs, *_ = expected(options, dtype, device)
    first, second = (run(inputs, name) for _ in range(2))
    return [key for key, tensor in first.items() if not torch.equal(tensor, second[key])]


def expected(options, dtype, device):
    """A problem, and what the definition makes of it in float64 and in this dtype."""
    torch.manual_seed(2021)
    inputs = make(**{"content": False, "dtype": dtype, "device": device} | options)
    plain = inputs.run_with_gradients("naive")
    names = ("query", "key", "value", "embedding")
    fields = {name: getattr(inputs, name) for name in names if getattr(inputs, name) is not None}
    for name, tensor in fields.items():
        setattr(inputs, name, tensor.detach().double().requires_grad_())
    inputs.grad = inputs.grad.double()
    exact = inputs.run_with_gradients("naive")
    inputs.grad = inputs.grad.to(dtype)
    for name, tensor in fields.items():
        setattr(inputs, name, tensor)
    return inputs, exact, plain


def run(inputs, name, rows=None, programs=PROGRAMS):
    """Output and gradients by kernels."""
    with tiny(rows, programs), only_kernels() if name == "content" else nullcontext():
        return inputs.run_with_gradients("auto" if name == "content" else name)


@contextmanager
def tiny(rows=None, programs=PROGRAMS):
    """Few programs, and tiles of so many rows."""
    changes = [mock.patch.object(launching, "PROGRAMS", programs)]
    if rows:
        changes += [mock.patch.object(module, "ROWS", rows) for module in (triton_weights, triton_lambdas)]
    for change in changes:
        change.start()
    try:
        yield
    finally:
        for change in changes:
            change.stop()


@contextmanager
def only_kernels():
    """The content lambda is computed by kernels, as if they had been tried on this device."""
    parts = [REGISTRIES[part] for part in ("content", "scan")]
    kernels = [{name: one for name, one in part.items() if not one.trusted} for part in parts]
    proved = {name: (1.0, 1.0) for part in kernels for name in part}
    changes = [mock.patch.dict(part, some, clear=True) for part, some in zip(parts, kernels, strict=True)]
    changes += [
        mock.patch(f"lambda_seq.functional.{module}.kernels", return_value=proved) for module in ("plan", "summaries")
    ]
    for change in changes:
        change.start()
    try:
        yield
    finally:
        for change in changes:
            change.stop()


def passes(name, options, device="cpu"):
    """Operations of torch in a forward pass that read or write a tensor as large as the output."""
    inputs = make(**{"dtype": torch.float32, "device": device} | options)
    found, size = [], inputs.grad.numel()

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            given = function(*args, **(kwargs or {}))
            tensors = [x for x in tree_leaves((args, given)) if isinstance(x, torch.Tensor)]
            if any(x.numel() == size for x in tensors) and function.name() not in FREE:
                found.append(function.name())
            return given

    with tiny(), torch.no_grad(), mock.patch.object(operators, "_watched", return_value=False), Mode():
        inputs.run(name)
    return found


# These read nothing of a tensor: memory for it, with NaN in it for the tests, views, what the interpreter hands back
FREE = {
    f"aten::{name}"
    for name in (
        "new_empty",
        "empty.memory_format",
        "fill_.Scalar",
        "permute",
        "view",
        "squeeze.dim",
        "set_.source_Storage_storage_offset",
    )
}


def hidden_row(options, device="cpu"):
    """The greatest numbers of output and gradients of a content lambda of which a row of the batch is masked whole."""
    inputs = make(**{"scope": None, "dtype": torch.float32, "device": device, "hidden": 0.4} | options)
    inputs.mask[1] = False
    inputs.grad = torch.randn_like(inputs.grad)  # at masked positions, too
    with tiny(), only_kernels():
        output = LF.lambda_layer(inputs.query, inputs.key, inputs.value, None, mask=inputs.mask, **inputs.options)
        named = {name: getattr(inputs, name) for name in ("query", "key", "value")}
        gradients = torch.autograd.grad(output, list(named.values()), inputs.grad)
    found = {"output": output, **dict(zip(named, gradients, strict=True))}
    return {name: tensor[1].abs().max().item() for name, tensor in found.items()}


def trials(part, dtype, device="cpu", some=slice(None)):
    """What `calibrate` would find of the kernels of a part, in some of its shapes: faults in words, "" for none."""
    registry, place = REGISTRIES[part], torch.device(device)
    with tiny():
        return [
            calibration.wrong(algorithm, registry.case(shape, place, dtype), dtype)
            for algorithm in registry.values()
            if not algorithm.trusted
            for shape in registry.right[some]
            if device == "cuda" or shape.X < LONG
        ]


# Work


def products(name, options):
    """Multiply-adds of a forward pass and of both as `count` has them, and as the interpreter sees them done."""
    inputs, *_ = expected(options, torch.float32, "cpu")
    with counting() as done, mock.patch.object(launching, "PROGRAMS", PROGRAMS):
        inputs.run(name)
        forward = sum(done)
        done.clear()
        inputs.run_with_gradients(name)
        sizes = Problem.of(inputs.query, None, inputs.value, inputs.embedding, **inputs.options).sizes
        sizes = sizes._replace(content=inputs.key is not None)
        counts = [REGISTRY[name].count(sizes, backward)[0].products for backward in (False, True)]
    return counts, [forward, sum(done)]


def content_products(part):
    """The same of the kernels of a part of the content lambda, in the first shape that they are tried by."""
    registry = REGISTRIES[part]
    (algorithm,) = (algorithm for algorithm in registry.values() if not algorithm.trusted)
    case = registry.case(registry.right[0], torch.device("cpu"), torch.float32)
    with counting() as done, mock.patch.object(launching, "PROGRAMS", PROGRAMS):
        algorithm.forward(*case.tensors, case.option)
        forward = sum(done)
        algorithm.backward(*case.grads, *case.tensors, case.option)
        counts = [algorithm.count(case.sizes, backward)[0].products for backward in (False, True)]
    return counts, [forward, sum(done)]


@contextmanager
def counting():
    """Multiply-adds of each product that the interpreter does."""
    from triton.runtime.interpreter import InterpreterBuilder

    done, dot = [], InterpreterBuilder.create_dot

    def counted(self, a, b, *others):
        (m, k), (_, n) = a.data.shape, b.data.shape
        done.append(m * n * k)
        return dot(self, a, b, *others)

    with mock.patch.object(InterpreterBuilder, "create_dot", counted):
        yield done
