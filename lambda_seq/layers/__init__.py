"""Modules with parameters: the lambda layer, its position embeddings, norms that respect masks."""

from lambda_seq.layers.embeddings import POSITIONS, make_position
from lambda_seq.layers.exponential import ExponentialPosition
from lambda_seq.layers.lambda_layer import LambdaLayer, LambdaLayer1d, LambdaLayer2d
from lambda_seq.layers.multiscale import MultiScalePosition
from lambda_seq.layers.norm import LayerNorm, MaskedBatchNorm, RMSNorm, make_norm
from lambda_seq.layers.position import PositionEmbedding, RelativePositionTable, resize_positions
from lambda_seq.layers.resizing import resize_table
from lambda_seq.layers.synced import separate, synchronise
from lambda_seq.layers.whole import WHOLE, Whole

__all__ = [
    "POSITIONS",
    "WHOLE",
    "ExponentialPosition",
    "LambdaLayer",
    "LambdaLayer1d",
    "LambdaLayer2d",
    "LayerNorm",
    "MaskedBatchNorm",
    "MultiScalePosition",
    "PositionEmbedding",
    "RMSNorm",
    "RelativePositionTable",
    "Whole",
    "make_norm",
    "make_position",
    "resize_positions",
    "resize_table",
    "separate",
    "synchronise",
]
