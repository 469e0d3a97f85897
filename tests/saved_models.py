"""Small models to save, for the tests of saving, loading and sharing."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from lambda_seq.models import Model, create_model

SMALL = {
    "lambda_encoder_tiny": {"num_classes": 3, "scope": [3, 5], "strides": (2,)},
    "lambda_lm_tiny": {"vocab_size": 20, "position": "exponential", "scope": None},
    "lambda_resnet_tiny": {"num_classes": 4},
}


def build(name: str = "lambda_encoder_tiny", **options) -> Model:
    """A small model of this name, always with the same weights."""
    torch.manual_seed(0)
    return create_model(name, **{**SMALL[name], **options})


def draw(model: Model) -> torch.Tensor:
    """An input that it takes."""
    if model.input_kind == "image":
        return torch.randn(2, 3, 8, 8)
    return torch.randint(model.vocab_size, (2, 13))


def tokenizer(size: int = 5) -> Tokenizer:
    """A tokenizer of so many words."""
    return Tokenizer(WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
