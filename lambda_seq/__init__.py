"""Lambda layers for long sequences and images: exact, fast, in linear memory."""

from lambda_seq import functional
from lambda_seq.layers import LambdaLayer1d, LambdaLayer2d

__version__ = "0.1.0"

__all__ = ["LambdaLayer1d", "LambdaLayer2d", "functional"]
