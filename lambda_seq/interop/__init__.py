"""Weights from other implementations, with equal outputs: `interop.timm` and `interop.lambda_networks`.

Neither package is needed to read its weights; they are imported only to write one of their layers.
"""

from lambda_seq.interop import lambda_networks, timm

__all__ = ["lambda_networks", "timm"]
