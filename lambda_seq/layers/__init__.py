"""Modules with parameters: the lambda layer, its position embeddings, norms that respect masks."""

from lambda_seq.layers.lambda_layer import LambdaLayer, LambdaLayer1d, LambdaLayer2d
from lambda_seq.layers.norm import LayerNorm, MaskedBatchNorm, RMSNorm, make_norm
from lambda_seq.layers.position import RelativePositionTable

__all__ = [
    "LambdaLayer",
    "LambdaLayer1d",
    "LambdaLayer2d",
    "LayerNorm",
    "MaskedBatchNorm",
    "RMSNorm",
    "RelativePositionTable",
    "make_norm",
]
