"""What an algorithm has to do, counted in the units that a machine's speeds are measured in (`rates.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_seq.functional.rates import Rates


@dataclass(slots=True)
class Work:
    """What has to be done, in one pass; adds up."""

    products: float = 0  # multiply-adds of matrix products
    streamed: float = 0  # numbers read and written by everything that is no product, and by products beside them
    transforms: float = 0  # operations of FFTs, 2.5 · P · log2 P each
    convolutions: float = 0  # multiply-adds of convolutions forward
    convolution_gradients: float = 0  # multiply-adds of convolutions backward
    calls: float = 0  # torch operations

    def __add__(self, other: Work) -> Work:
        return self._with(other, 1)

    def __sub__(self, other: Work) -> Work:
        return self._with(other, -1)

    def __mul__(self, times: float) -> Work:
        return Work()._with(self, times)

    def _with(self, other: Work, times: float) -> Work:
        return Work(
            self.products + times * other.products,
            self.streamed + times * other.streamed,
            self.transforms + times * other.transforms,
            self.convolutions + times * other.convolutions,
            self.convolution_gradients + times * other.convolution_gradients,
            self.calls + times * other.calls,
        )

    @property
    def multiply_adds(self) -> float:
        """Arithmetic, in multiply-adds: an operation of an FFT counts half."""
        return self.products + self.convolutions + self.convolution_gradients + self.transforms / 2

    def seconds(self, speed: Rates) -> float:
        """Predicted time at the rates of a machine."""
        return (
            self.products / speed.products
            + self.streamed / speed.streamed
            + self.transforms / speed.transforms
            + self.convolutions / speed.convolutions
            + self.convolution_gradients / speed.convolution_gradients
            + self.calls / speed.calls
        )


def product(batch: float, m: float, n: float, k: float) -> Work:
    """A (batched) matrix product, (m × k) · (k × n): its multiply-adds, and operands and result going by."""
    return Work(products=batch * m * n * k, streamed=batch * (m * k + k * n + m * n), calls=1)
