"""Our operators in torch's ordinary operations, for programs that other runtimes run: `decompositions`.

Everything here is written for sizes that are not known yet: no view by strides, no branch on a length, and memory
linear in it. Backward passes have no such form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lambda_seq.functional.api import AUTO, AUTO_WITH_CONTENT
from lambda_seq.functional.applying import apply
from lambda_seq.functional.operators import Operator
from lambda_seq.functional.plain.correlation import position
from lambda_seq.functional.plain.prefix import scan
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.scan import SCAN, SCANS
from lambda_seq.functional.summaries import SUMMARIES, SUMMARY, plain


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What takes the place of each of our operators, for `torch.export.ExportedProgram.run_decompositions`."""
    found: list[tuple[Operator, Callable[..., Any]]] = [(SCAN, scan), (SUMMARY, plain)]
    found += [(one.operator, scan) for one in SCANS.values()]
    found += [(one.operator, plain) for one in SUMMARIES.values()]
    for alone, beside in [
        (AUTO, AUTO_WITH_CONTENT),
        *((one.operator, one.operator_with_content) for one in REGISTRY.values()),
    ]:
        found += [(alone, position), (beside, _layer)]
    return {
        getattr(torch.ops.lambda_seq, name).default: function for operator, function in found for name in operator.names
    }


def _layer(query: Tensor, value: Tensor, embedding: Tensor, content: Tensor, origin: list[int]) -> Tensor:
    """`lambda_seq::layer`: both lambdas."""
    return apply(query, content, position(query, value, embedding, origin))
