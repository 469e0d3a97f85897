"""Relative position embeddings. A file of this folder that defines one is named below, in the order of the names."""

from lambda_seq.layers.positions import table, multiscale, exponential  # isort: skip

__all__ = ["exponential", "multiscale", "table"]
