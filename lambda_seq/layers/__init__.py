"""Modules with parameters: the lambda layer, its position embeddings, norms that respect masks."""

from lambda_seq.layers.decay import param_groups
from lambda_seq.layers.faces import LambdaLayer1d, LambdaLayer2d
from lambda_seq.layers.lambda_layer import LambdaLayer
from lambda_seq.layers.norm import LayerNorm, MaskedBatchNorm, RMSNorm, adopt_batch_norms, make_norm
from lambda_seq.layers.positions.embedding import POSITIONS, PositionEmbedding
from lambda_seq.layers.positions.exponential import ExponentialPosition
from lambda_seq.layers.positions.multiscale import MultiScalePosition
from lambda_seq.layers.positions.registry import make_position
from lambda_seq.layers.positions.resizing import resize_table
from lambda_seq.layers.positions.table import RelativePositionTable, resize_positions
from lambda_seq.layers.sequence_context import UNSHARDED, SequenceContext
from lambda_seq.layers.synced import separate, synchronise

__all__ = [
    "POSITIONS",
    "UNSHARDED",
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
    "SequenceContext",
    "adopt_batch_norms",
    "make_norm",
    "make_position",
    "param_groups",
    "resize_positions",
    "resize_table",
    "separate",
    "synchronise",
]
