"""Heads by name: whether features are pooled for them, the layer that makes logits, its loss, and what logits answer.

    name         features are   target                      loss                answer
    classes      pooled         (B,) class numbers          cross entropy       probabilities (B, classes)
    labels       pooled         (B, labels) 0 or 1          binary c. e.        probability of each (B, labels)
    numbers      pooled         (B, numbers)                squared, or Huber's numbers (B, numbers)
    embedding    pooled         (B, dim), of their partners InfoNCE             vectors (B, dim)
    positions    one by one     (B, M) class numbers        cross entropy       probabilities (B, M, classes)
    tokens       one by one     (B, M) or (B, M, S) ids     cross entropy       probabilities (B, M, [S,] ids)
    values       one by one     (B, M, S · channels)        squared error       values (B, M, S · channels)

M are the positions, or behind strides the frames, of S positions each.
"""

from lambda_seq.models.heads.base import IGNORED, Objective, list_heads, make_objective, register_head
from lambda_seq.models.heads.layers import Inputs
from lambda_seq.models.heads.pooled import Classes, Embedding, Labels, Numbers
from lambda_seq.models.heads.positions import Positions, TokenIds, Values

__all__ = [
    "IGNORED",
    "Classes",
    "Embedding",
    "Inputs",
    "Labels",
    "Numbers",
    "Objective",
    "Positions",
    "TokenIds",
    "Values",
    "list_heads",
    "make_objective",
    "register_head",
]
