"""Cross entropies whose targets are smoothed, and whose classes weigh differently.

A row weighs what the class of its target does, and smoothing moves part of the target within the row. Torch's `weight`
and `pos_weight` are of what the smoothed target has of each class instead: there a class that weighs much draws the
answers of all rows to it, by the part of their targets that smoothing gave it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from lambda_seq.models.heads.base import IGNORED


def cross_entropy(
    logits: Float[Tensor, "B classes *N"],
    target: Shaped[Tensor, "B ..."],
    weight: Float[Tensor, " classes"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, "B *N"]:
    """Σ_c w_c p_c · H(smoothed c, softmax(logits)), of the probabilities p of the target; 0 where it is `IGNORED`.

    Args:
        logits: of each class.
        target: numbers of classes (B, *N), or their probabilities (B, classes).
        weight: w, 1 for None.
        smoothing: probability spread evenly over all classes, ε: smoothed c is (1 − ε) onehot(c) + ε / classes.
    """
    if weight is None:
        return F.cross_entropy(logits, target, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none")
    if target.is_floating_point():
        part = target.to(logits.dtype) * weight  # (B, classes)
        row = part.sum(1)
        target = part / row[:, None].clamp_min(torch.finfo(row.dtype).tiny)
    else:
        row = weight[target.clamp_min(0)]
    return row * F.cross_entropy(logits, target, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none")


def binary_cross_entropy(
    logits: Float[Tensor, "B labels"],
    target: Float[Tensor, "B labels"],
    weight: Float[Tensor, " labels"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, "B labels"]:
    """w t · H(smoothed 1, σ(logits)) + (1 − t) · H(smoothed 0, σ(logits)), of targets t from 0 to 1.

    Args:
        logits: of each label.
        target: t, whether a row has it.
        weight: w, 1 for None.
        smoothing: part of the target that is 1/2, ε: smoothed t is (1 − ε) t + ε / 2.
    """
    row: Tensor | float = 1.0
    if weight is not None:
        there = target * weight
        row = there + 1 - target
        target = there / row.clamp_min(torch.finfo(row.dtype).tiny)
    goal = target.lerp(target.new_tensor(0.5), smoothing)
    return row * F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
