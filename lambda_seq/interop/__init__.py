"""Weights from other implementations, with equal outputs: `interop.timm` and `interop.lambda_networks`.

Neither package is needed to read its weights; they are imported only to write one of their layers. Our networks as
classes of transformers are `interop.huggingface`, which needs that and is imported by its own name.
"""

from lambda_seq.interop import lambda_networks, timm

__all__ = ["lambda_networks", "timm"]
