"""Batches whose rows are mixed with one another, and targets that say how much of which class is in each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Not kornia's RandomMixUpV2 and RandomCutMixV2, though kornia changes pictures one by one here: its MixUp draws λ
# evenly between two bounds, not from Beta(α, α); both pair at random, which may leave pictures as they are; and targets
# would still have to be made of the (class, other class, λ) that they return, in the pictures' floating point.


class Mixing:
    """MixUp and CutMix of a batch of pictures, MixUp of one of sequences of numbers, with targets in proportion.

        λ ~ Beta(α, α)
        MixUp:  x' = λ x + (1 − λ) x̃                                     t' = λ t + (1 − λ) t̃
        CutMix: x' = x with a rectangle of x̃ that covers 1 − λ of it     t' = s t + (1 − s) t̃, s what is left of x

    Every row draws a share of its own, and x̃ is the row before it in the batch, of the first one the last. A shorter
    sequence is as if zeros followed, so that a position is real if it is in either. A rectangle's middle lies anywhere
    in the picture and what sticks out is cut off; targets go by what is covered. If both are on, each batch gets one of
    them, with equal chances. Draws come from torch's own generator. H. Zhang et al., "mixup", ICLR 2018; S. Yun et al.,
    "CutMix", ICCV 2019.

    Args:
        mixup: α of MixUp; 0 for none.
        cutmix: α of CutMix; 0 for none.

    Raises:
        ValueError: a number below 0.
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha < float("inf"):
                raise ValueError(f"{name}={alpha}: expected the α of Beta(α, α), such as 0.2, or 0 for none")
        self.mixup, self.cutmix = mixup, cutmix

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(
        self,
        x: Float[Tensor, "B C H W"] | Float[Tensor, "B N *C"],
        labels: Int[Tensor, " B"] | Float[Tensor, "B classes"],
        classes: int,
        mask: Bool[Tensor, "B N"] | None = None,
        agreed: Callable[[Tensor], Tensor] = lambda share: share,
    ) -> tuple[Tensor, Float[Tensor, "B classes"], Bool[Tensor, "B N"] | None]:
        """Mixed rows, the share of each class in each of them, and where they are real.

        Args:
            x: pictures; or samples or vectors of sequences, of which CutMix is not.
            labels: class numbers, or 0 and 1 of each label.
            classes: how many there are; rows of the targets sum to 1.
            mask: True at real positions of sequences; None if all are.
            agreed: makes of the shares (B,) that are drawn here those of all processes that have these rows.
        """
        if mask is not None:  # what stands at padding may be anything
            x = x.masked_fill(~mask.view(*mask.shape, *[1] * (x.ndim - 2)), 0)
            mask = mask | mask.roll(1, 0)
        cut = bool(self.cutmix and (not self.mixup or torch.rand(()) < 0.5))
        alpha = x.new_tensor(self.cutmix if cut else self.mixup, dtype=torch.float32)
        share = torch.distributions.Beta(alpha, alpha).sample((len(x),))  # (B,), λ
        other = x.roll(1, 0)
        if cut:
            covered = rectangles(1 - share, x.shape[2], x.shape[3])  # (B, H, W)
            x = torch.where(covered[:, None], other, x)
            share = 1 - covered.float().mean((1, 2))
        else:
            share = agreed(share)
            x = other.lerp(x, share.to(x.dtype).view(-1, *[1] * (x.ndim - 1)))
        target = labels.float() if labels.is_floating_point() else F.one_hot(labels, classes).float()  # (B, classes)
        return x, target.roll(1, 0).lerp(target, share[:, None]), mask


def rectangles(area: Float[Tensor, " B"], height: int, width: int) -> Tensor:
    """Masks (B, H, W) of rectangles of the picture's shape that cover these parts of it, around random middles."""
    side = area.sqrt()
    covered = []
    for length in (height, width):
        middle = torch.rand_like(area) * length  # (B,)
        half = side * length / 2
        places = torch.arange(length, device=area.device) + 0.5
        covered.append((places - middle[:, None]).abs() < half[:, None])  # (B, length)
    rows, columns = covered
    return rows[:, :, None] & columns[:, None, :]
