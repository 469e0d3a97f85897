"""Lambda order by direct convolution, for small two-dimensional scopes: n · r · k · v multiply-adds.

Each value channel is an image of U channels, convolved with the K kernels of the embedding (the paper's "lambda
convolution", Bello 2021, section 3.2); torch correlates, which is what R[m − n] asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional import channelwise


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


forward = partial(channelwise.forward, DirectCorrelation)
backward = partial(channelwise.backward, DirectCorrelation)
