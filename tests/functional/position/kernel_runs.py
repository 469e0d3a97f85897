"""What a process with Triton does for the tests: run kernels beside the definition, or compile them for a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import torch
from problems import make, relative

from lambda_seq.functional.position import launching, triton_lambdas, triton_weights
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem, Sizes


def mode() -> str | None:
    """How this process runs kernels; Triton reads it as it is imported."""
    torch.use_deterministic_algorithms(True)  # new memory is NaN
    torch.set_num_threads(1)
    return os.environ.get("TRITON_INTERPRET")


def compare(name, options, dtype, device="cpu", rows=None, programs=3):
    """Errors of output and gradients against the definition in float64: the kernel's, and the definition's in dtype.

    Few programs share a sum, as the interpreter runs one after another.
    """
    inputs, exact, plain = _expected(options, dtype, device)
    found = _run(inputs, name, rows, programs)
    if inputs.mask is None:  # else they are multiplied by it
        for key, tensor in found.items():  # as results of all algorithms lie in memory
            assert (tensor if key == "embedding" else tensor.movedim(1, -2)).is_contiguous(), key
    return {key: (relative(found[key], exact[key]), relative(plain[key], exact[key])) for key in exact}


def twice(name, options, dtype, device="cpu"):
    """Names of what two runs do not give bit for bit."""
    inputs, *_ = _expected(options, dtype, device)
    first, second = (_run(inputs, name, None, 3) for _ in range(2))
    return [key for key, tensor in first.items() if not torch.equal(tensor, second[key])]


def _expected(options, dtype, device):
    torch.manual_seed(2021)
    inputs = make(**{"content": False, "dtype": dtype, "device": device} | options)
    plain = inputs.run_with_gradients("naive")
    fields = {name: getattr(inputs, name) for name in ("query", "value", "embedding")}
    for name, tensor in fields.items():
        setattr(inputs, name, tensor.detach().double().requires_grad_())
    inputs.grad = inputs.grad.double()
    exact = inputs.run_with_gradients("naive")
    inputs.grad = inputs.grad.to(dtype)
    for name, tensor in fields.items():
        setattr(inputs, name, tensor)
    return inputs, exact, plain


def _run(inputs, name, rows, programs):
    changes = [mock.patch.object(launching, "PROGRAMS", programs)]
    if rows:
        changes += [mock.patch.object(module, "ROWS", rows) for module in (triton_weights, triton_lambdas)]
    for change in changes:
        change.start()
    try:
        return inputs.run_with_gradients(name)
    finally:
        for change in changes:
            change.stop()


def products(name, options):
    """Multiply-adds of a forward pass and of both as `count` has them, and as the interpreter sees them done."""
    from triton.runtime.interpreter import InterpreterBuilder

    inputs, *_ = _expected(options, torch.float32, "cpu")
    done, dot = [], InterpreterBuilder.create_dot

    def counted(self, a, b, *others):
        (m, k), (_, n) = a.data.shape, b.data.shape
        done.append(m * n * k)
        return dot(self, a, b, *others)

    with mock.patch.object(InterpreterBuilder, "create_dot", counted), mock.patch.object(launching, "PROGRAMS", 3):
        inputs.run(name)
        forward = sum(done)
        done.clear()
        inputs.run_with_gradients(name)
        sizes = Problem.of(inputs.query, None, inputs.value, inputs.embedding, **inputs.options).sizes
        counts = [REGISTRY[name].count(sizes, backward)[0].products for backward in (False, True)]
    return counts, [forward, sum(done)]


def no_compiler() -> str:
    """Why nothing can be compiled here, "" if it can."""
    from triton import knobs

    path = knobs.nvidia.ptxas.path
    return "" if os.path.isfile(path) else f"Triton brings no ptxas: {path}"


def compiled(capability, dtype, *, H, K, V, Y, RY, RX, X=5000):
    """(kernel, shared memory of a program, stack of a thread) of all kernels, compiled as launched; in bytes."""
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    sizes = Sizes(2, H, 1, K, V, Y, X, RY, RX, (RY // 2, RX // 2))
    grad, query, value = (torch.empty(2, C, Y, X, D, device="meta", dtype=dtype) for C, D in ((H, V), (H, K), (1, V)))
    embedding = torch.empty(1, K, RY, RX, device="meta", dtype=dtype)
    found = []

    def compile_only(kernel, programs, tensors, numbers, num_warps, **constants):
        """As a launch does: numbers that are 1 are constants, and what 16 divides is known to be so."""
        options = launching.OPTIONS | {"num_warps": num_warps}
        names = kernel.arg_names
        given = dict(zip(names, [*tensors, *numbers], strict=False))
        ones = [name for name, one in given.items() if not isinstance(one, torch.Tensor) and one == 1]
        constants = constants | {"DOT": launching.operands(dtype)} | dict.fromkeys(ones, 1)
        kinds = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
        signature, aligned = {}, {}
        for index, name in enumerate(names):
            tensor = isinstance(given.get(name), torch.Tensor)
            signature[name] = "constexpr" if name in constants else kinds[given[name].dtype] if tensor else "i32"
            if name not in constants and (tensor or given[name] % 16 == 0):
                aligned[(index,)] = [["tt.divisibility", 16]]
        source = ASTSource(kernel, signature, constants, aligned)
        done = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        cubin = Path(folder) / "kernel"
        cubin.write_bytes(done.asm["cubin"])
        usage = subprocess.check_output([knobs.nvidia.cuobjdump.path, "-res-usage", cubin], text=True)
        stack = int(re.search(r"STACK:(\d+)", usage)[1])
        found.append((f"{kernel.fn.__module__}.{kernel.fn.__name__}", done.metadata.shared, stack))

    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, TRITON_CACHE_DIR=folder):
        for module in (triton_weights, triton_lambdas):
            with mock.patch.object(module, "launch", compile_only):
                module.forward(query, value, embedding, sizes)
                module.backward(grad, query, value, embedding, sizes)
    return found
