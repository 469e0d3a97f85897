"""All Triton kernels compiled for a GPU that need not be here, as launches have them, and what they take there."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from lambda_seq.functional import launching, summing, triton_content, triton_scan
from lambda_seq.functional.algorithm import REGISTRIES, Shape
from lambda_seq.functional.position import triton_lambdas, triton_weights
from lambda_seq.functional.problem import Sizes

KINDS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
CONTENT = {"content": triton_content, "scan": triton_scan}  # modules of kernels, by their registry


SHAPES = {
    "sequence": Shape(2, 4, 1, 16, 64, 1, 5000, 1, 63),
    "largest": Shape(2, 1, 1, 64, 128, 7, 5000, 5, 23),
    "intra": Shape(2, 3, 2, 5, 9, 1, 5000, 1, 7, key_norm="l2"),
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


def compiled(capability: int, dtype: torch.dtype, shape: Shape, parts: Sequence[str], quick: bool) -> list[Any]:
    """Of each form of a kernel that is launched: name, bytes of shared memory, registers of a thread, bytes it spills.

    The last two are left out if quick.

    Args:
        capability: of the device, 90 for 9.0.
        dtype: of tensors.
        shape: of the problem.
        parts: "position", "content", "scan".
        quick: take the last step, from which registers come and not shared memory, without optimisation.
    """
    found = _Compiled(dtype, capability, quick)
    _launch(found, shape, parts)
    return list(found.forms.values())


def forms(dtype: torch.dtype, shape: Shape, lengths: Iterable[int]) -> Counter[str]:
    """In how many forms each kernel is launched, and so would be compiled, for inputs of these lengths."""
    found = _Forms(dtype)
    for length in lengths:
        _launch(found, shape._replace(X=length), ("position", *CONTENT))
    return Counter(found.forms.values())


class _Forms:
    """What stands in for `launch`: the forms in which kernels are launched, which are compiled each by itself."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.forms: dict[str, Any] = {}

    def __call__(
        self, kernel: Any, programs: int, tensors: Any, numbers: Any, num_warps: int, **constants: Any
    ) -> None:
        """As a launch does: numbers that are 1 are constants, and what 16 divides is known to be so, if kernels ask."""
        names, given = kernel.arg_names, dict(zip(kernel.arg_names, [*tensors, *numbers], strict=False))
        asked = {parameter.name for parameter in kernel.params if not parameter.do_not_specialize}
        ones = {name: 1 for name, one in given.items() if name in asked and not isinstance(one, Tensor) and one == 1}
        constants = {**constants, "DOT": launching.operands(self.dtype), **ones}
        signature, aligned = {}, {}
        for index, name in enumerate(names):
            one = given.get(name)
            kind = KINDS[one.dtype] if isinstance(one, Tensor) else "i32"
            signature[name] = "constexpr" if name in constants else kind
            if name in asked - constants.keys() and (isinstance(one, Tensor) or given[name] % 16 == 0):
                aligned[(index,)] = [["tt.divisibility", 16]]
        name = f"{kernel.fn.__module__.removeprefix('lambda_seq.functional.')}.{kernel.fn.__name__}"
        key = f"{name} {signature} {constants} {aligned}"
        if key not in self.forms:
            self.forms[key] = self.made(name, num_warps, kernel, signature, constants, aligned)

    def made(self, name: str, num_warps: int, *source: Any) -> Any:
        """What is kept of a form."""
        return name


class _Compiled(_Forms):
    """Forms, compiled and not run."""

    def __init__(self, dtype: torch.dtype, capability: int, quick: bool) -> None:
        super().__init__(dtype)
        self.capability, self.quick = capability, quick

    def made(self, name: str, num_warps: int, *source: Any) -> Any:
        """Name, bytes of shared memory, registers and what they spill."""
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile

        options = launching.OPTIONS | {"num_warps": num_warps}
        with redirect_stdout(StringIO()) as log:
            done = compile(ASTSource(*source), target=GPUTarget("cuda", self.capability, 32), options=options)
        return [name, done.metadata.shared, *([] if self.quick else _registers(log.getvalue()))]


def _launch(forms: _Forms, shape: Shape, parts: Sequence[str]) -> None:
    """All launches for a problem go there; what they compile is not kept."""
    modules = (summing, triton_weights, triton_lambdas, *CONTENT.values())
    options = {"PTXAS_OPTIONS": "--opt-level 1"} if getattr(forms, "quick", True) else {"TRITON_DUMP_PTXAS_LOG": "1"}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.dict(os.environ, TRITON_CACHE_DIR=folder, **options))
        for module in modules:
            stack.enter_context(mock.patch.object(module, "launch", forms))
        if "position" in parts:
            _positions(shape, forms.dtype)
        for part, module in CONTENT.items():
            if part in parts:
                _content(part, module, shape, forms.dtype)


def _positions(shape: Shape, dtype: torch.dtype) -> None:
    """Launch what position lambdas take, with a content lambda and without."""
    s = shape
    sizes = Sizes(s.B, s.H, s.U, s.K, s.V, s.Y, s.X, s.RY, s.RX, (s.RY // 2, s.RX // 2))
    widths = ((s.H, s.V), (s.H, s.K), (s.U, s.V))
    grad, query, value = (torch.empty(s.B, C, s.Y, s.X, D, device="meta", dtype=dtype) for C, D in widths)
    embedding = torch.empty(s.U, s.K, s.RY, s.RX, device="meta", dtype=dtype)
    for module in (triton_weights, triton_lambdas):
        for lambdas in ((), (torch.empty(s.B, s.K, s.V, device="meta"),)):
            module.forward(query, value, embedding, sizes, *lambdas)
            module.backward(grad, query, value, embedding, sizes, *lambdas)


def _content(part: str, module: ModuleType, shape: Shape, dtype: torch.dtype) -> None:
    """Launch what a content lambda takes; the causal one with the largest state that it is for."""
    s = shape._replace(Y=1, RY=1, RX=1)
    if part == "scan":
        s = s._replace(K=min(s.K, 16 if dtype == torch.float32 else 32), V=min(s.V, 64))
    case = REGISTRIES[part].case(s, torch.device("meta"), dtype)
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
