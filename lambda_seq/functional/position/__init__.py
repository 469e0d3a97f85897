"""The position lambda: one algorithm a file, with its passes, its cost and where it applies."""

# Each registers itself
from lambda_seq.functional.position import banded, convolution, dense, fft, toeplitz, triton_lambdas, triton_weights  # noqa: F401  # noqa: F401
