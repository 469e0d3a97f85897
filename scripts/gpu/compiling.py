"""All Triton kernels compiled for a GPU that need not be here, as launches have them, and what they take there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from lambda_seq.functional import launching, summing, triton_content, triton_scan
from lambda_seq.functional.algorithm import REGISTRIES
from lambda_seq.functional.position import triton_lambdas, triton_weights
from lambda_seq.functional.problem import Sizes

KINDS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
CONTENT = {"content": triton_content, "scan": triton_scan}  # modules of kernels, by their registry
KERNELS = 14


@dataclass(frozen=True)
class Shape:
    """A problem that launches are taken from; the letters of `Sizes`."""

    H: int
    K: int
    V: int
    Y: int
    RY: int
    RX: int
    U: int = 1
    X: int = 5000
    key_norm: str = "softmax"


SHAPES = {
    "sequence": Shape(H=4, K=16, V=64, Y=1, RY=1, RX=63),
    "largest": Shape(H=1, K=64, V=128, Y=7, RY=5, RX=23),
    "intra": Shape(H=3, K=5, V=9, Y=1, RY=1, RX=7, U=2, key_norm="l2"),
}


def missing() -> str:
    """Why nothing can be compiled here, "" if it can."""
    try:
        from triton import knobs
    except ImportError:
        return "Triton is not installed: pip install triton"
    if launching.interpreted():
        return "TRITON_INTERPRET=1 has Triton interpret kernels: unset it"
    path = knobs.nvidia.ptxas.path
    return "" if os.path.isfile(path) else f"Triton brings no ptxas: {path}"


def compiled(capability: int, dtype: torch.dtype, shape: Shape, parts: tuple[str, ...], quick: bool) -> list[Any]:
    """Of each kernel in each form that is launched: its name, bytes of shared memory of a program, and, unless quick,
    registers of a thread and bytes that it spills.

    Args:
        capability: of the device, 90 for 9.0.
        dtype: of tensors.
        shape: of the problem.
        parts: "position", "content", "scan".
        quick: take the last step, from which registers come and not shared memory, without optimisation.
    """
    forms = _Forms(capability, dtype, quick)
    with _launching(forms):
        if "position" in parts:
            _positions(shape, dtype)
        for part, module in CONTENT.items():
            if part in parts:
                _content(part, module, shape, dtype)
    return list(forms.found.values())


class _Forms:
    """What stands in for `launch`: a kernel is compiled once in each of its forms, and not run."""

    def __init__(self, capability: int, dtype: torch.dtype, quick: bool) -> None:
        self.capability, self.dtype, self.quick = capability, dtype, quick
        self.found: dict[str, Any] = {}

    def __call__(
        self, kernel: Any, programs: int, tensors: Any, numbers: Any, num_warps: int, **constants: Any
    ) -> None:
        """As a launch does: numbers that are 1 are constants, and what 16 divides is known to be so."""
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile

        names, given = kernel.arg_names, dict(zip(kernel.arg_names, [*tensors, *numbers], strict=False))
        ones = {name: 1 for name, one in given.items() if not isinstance(one, Tensor) and one == 1}
        constants = {**constants, "DOT": launching.operands(self.dtype), **ones}
        signature, aligned = {}, {}
        for index, name in enumerate(names):
            one = given.get(name)
            kind = KINDS[one.dtype] if isinstance(one, Tensor) else "i32"
            signature[name] = "constexpr" if name in constants else kind
            if name not in constants and (isinstance(one, Tensor) or given[name] % 16 == 0):
                aligned[(index,)] = [["tt.divisibility", 16]]
        key = f"{kernel.fn.__module__}.{kernel.fn.__name__} {signature} {constants} {aligned}"
        if key in self.found:
            return
        options = launching.OPTIONS | {"num_warps": num_warps}
        source = ASTSource(kernel, signature, constants, aligned)
        with redirect_stdout(StringIO()) as log:
            done = compile(source, target=GPUTarget("cuda", self.capability, 32), options=options)
        name = f"{kernel.fn.__module__.removeprefix('lambda_seq.functional.')}.{kernel.fn.__name__}"
        self.found[key] = [name, done.metadata.shared, *([] if self.quick else _registers(log.getvalue()))]


@contextmanager
def _launching(launch: _Forms) -> Iterator[None]:
    """Launches go there, and what they compile is not kept."""
    modules = (summing, triton_weights, triton_lambdas, *CONTENT.values())
    with tempfile.TemporaryDirectory() as folder:
        patches: list[Any] = [mock.patch.object(module, "launch", launch) for module in modules]
        options = {"PTXAS_OPTIONS": "--opt-level 1"} if launch.quick else {"TRITON_DUMP_PTXAS_LOG": "1"}
        patches.append(mock.patch.dict(os.environ, TRITON_CACHE_DIR=folder, **options))
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _positions(shape: Shape, dtype: torch.dtype) -> None:
    """Launch what position lambdas take, with a content lambda and without."""
    s = shape
    sizes = Sizes(2, s.H, s.U, s.K, s.V, s.Y, s.X, s.RY, s.RX, (s.RY // 2, s.RX // 2))
    widths = ((s.H, s.V), (s.H, s.K), (s.U, s.V))
    grad, query, value = (torch.empty(2, C, s.Y, s.X, D, device="meta", dtype=dtype) for C, D in widths)
    embedding = torch.empty(s.U, s.K, s.RY, s.RX, device="meta", dtype=dtype)
    for module in (triton_weights, triton_lambdas):
        for lambdas in ((), (torch.empty(2, s.K, s.V, device="meta"),)):
            module.forward(query, value, embedding, sizes, *lambdas)
            module.backward(grad, query, value, embedding, sizes, *lambdas)


def _content(part: str, module: ModuleType, shape: Shape, dtype: torch.dtype) -> None:
    """Launch what a content lambda takes; the causal one with the largest state that it is for."""
    s, registry = shape, REGISTRIES[part]
    width, depth = (min(s.K, 32), min(s.V, 64)) if part == "scan" else (s.K, s.V)
    wanted = registry.right[0]._replace(B=2, H=s.H, U=s.U, K=width, V=depth, X=s.X, key_norm=s.key_norm)
    case = registry.case(wanted, torch.device("meta"), dtype)
    module.forward(*case.tensors, case.option)
    module.backward(*case.grads, *case.tensors, case.option)


def _registers(log: str) -> list[int]:
    """Registers of a thread, and bytes that it spills, of what the assembler says."""
    found = (
        max(map(int, re.findall(pattern, log)), default=None)
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill")
    )
    registers, spilled = found
    if registers is None or spilled is None:
        raise RuntimeError(f"the assembler of Triton says nothing of registers: {log!r}; use --quick")
    return [registers, spilled]
