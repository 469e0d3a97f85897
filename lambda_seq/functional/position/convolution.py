"""Lambda order by direct convolution, for small two-dimensional scopes: n · r · k · v multiply-adds.

Each value channel is an image of U channels, convolved with the K kernels of the embedding (the paper's "lambda
convolution", Bello 2021, section 3.2); torch correlates, which is what R[m − n] asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional.operators import without_tf32
from lambda_seq.functional.position import channelwise
from lambda_seq.functional.position.registry import Algorithm, register
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work


class DirectCorrelation:
    """`channelwise.Correlation` by `torch.nn.functional.conv2d` over (Y, X)."""

    key_by_key = False

    def __init__(self, embedding: Tensor, size: Sequence[int], origin: Sequence[int]) -> None:
        self.size = tuple(size)
        self.points = size[0] * size[1]
        self.kernel = embedding.transpose(0, 1).contiguous()  # (K, U, RY, RX)
        self.kernel_grad = torch.zeros_like(self.kernel)
        taps = embedding.shape[2:]
        (above, left), (below, right) = origin, [count - 1 - first for count, first in zip(taps, origin, strict=True)]
        self.padding = (left, right, above, below)

    def load(self, values: Tensor) -> None:
        """Take a group of values, (b, v, U, Y, X), padded by the scope."""
        self.values = F.pad(values, self.padding)
        self.values_grad: Tensor | None = None

    def lambdas(self, channels: slice, keys: slice) -> Tensor:
        """Lambdas (b, v, K, Y, X)."""
        values = self.values[:, channels]
        return F.conv2d(values.flatten(0, 1), self.kernel).unflatten(0, values.shape[:2])

    def add_gradient(self, channels: slice, keys: slice, grad: Tensor) -> None:
        """Add the convolution's gradients for the gradient of lambdas, (b, v, K, Y, X)."""
        if self.values_grad is None:
            self.values_grad = torch.empty_like(self.values)
        values = self.values[:, channels]
        grad_values, grad_kernel, _ = torch.ops.aten.convolution_backward(
            grad.flatten(0, 1),
            values.flatten(0, 1),
            self.kernel,
            None,
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            1,
            [True, True, False],
        )
        self.values_grad[:, channels] = grad_values.unflatten(0, values.shape[:2])
        self.kernel_grad += grad_kernel

    def value_gradient(self) -> Tensor:
        """Gradient of the loaded values, (b, v, U, Y, X)."""
        return F.pad(self.values_grad, [-count for count in self.padding])  # type: ignore[arg-type]

    def embedding_gradient(self) -> Tensor:
        """Gradient of the embedding, (U, K, RY, RX)."""
        return self.kernel_grad.transpose(0, 1)


def forward(query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes) -> Tensor:
    """Position part of the output, (B, H, Y, X, V); arguments as in `registry.Algorithm`."""
    with without_tf32(query.device):
        return channelwise.forward(DirectCorrelation, query, value, embedding, sizes)


def backward(
    grad: Tensor, query: Tensor, value: Tensor, embedding: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, value and embedding; the lambdas are computed again, chunk by chunk."""
    with without_tf32(query.device):
        return channelwise.backward(DirectCorrelation, grad, query, value, embedding, sizes)


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without."""
    work, temporary = channelwise.count(s, s.Y * s.X, DirectCorrelation.key_by_key, backward)
    products = s.N * s.V * s.K * s.U * s.RY * s.RX
    work += Work(convolutions=products)
    if backward:
        work += Work(convolutions=products, convolution_gradients=2 * products)
    return work, temporary


register(Algorithm("convolution", "lambdas by direct convolution, channel by channel", forward, backward, count))
