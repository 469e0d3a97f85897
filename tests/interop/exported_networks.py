"""Small networks of every kind that is exported, for the tests of exports."""

import torch

from lambda_seq import create_model

TINY = {"dim": 16, "heads": 2, "dim_key": 4}
# Each position embedding, in as few layers as will do: those of many offsets take long to export
NETWORKS = {
    "tokens": (
        "lambda_encoder",
        {"stem": "tokens", "num_classes": 3, "depth": 3}
        | {"scope": [7, None, 1], "position": ["table", "exponential", False]},
    ),
    "words": (
        "lambda_encoder",
        {"stem": "ngrams", "buckets": 50, "tf": "log", "df_power": 0.5, "num_classes": 3}
        | {"depth": 0, "block_norm": "none", "pool": "sqrt"},
    ),
    "waveform": (
        "lambda_encoder",
        {"stem": "waveform", "head": "labels", "num_classes": 4, "pool": "attention"}
        | {"depth": 1, "scope": 9, "position": "multiscale"},
    ),
    "spectrum": (
        "lambda_encoder",
        {"stem": "spectrum", "strides": [16, 2], "num_classes": 4, "depth": 1, "scope": 5, "block_norm": "batch"},
    ),
    "features": (
        "lambda_encoder",
        {"stem": "features", "in_channels": 3, "strides": [2, 4], "head": "positions", "num_classes": 5, "depth": 1}
        | {"scope": None, "max_length": 2**16, "block_norm": "batch", "key_norm": "l2"},
    ),
    "causal": (
        "lambda_encoder",
        {"stem": "tokens", "pool": "last", "causal": True, "max_length": 4000}
        | {"depth": 1, "scope": None, "position": "multiscale", "key_norm": "none"},
    ),
    "texts": ("lambda_lm", {"vocab_size": 20, "depth": 1, "scope": 8}),
    "step": (
        "lambda_lm",
        {"vocab_size": 20, "depth": 5, "scope": [7, None, None, None, 1], "max_length": 40}
        | {"position": ["table", "table", "multiscale", "exponential", False]},
    ),
    "pictures": ("lambda_resnet_tiny", {"num_classes": 4, "zero_init_last": False, "se": 0.25}),
    "pictures, global": (
        "lambda_resnet_tiny",
        {"num_classes": 4, "zero_init_last": False, "scope": None, "image_size": [24, 20]},
    ),
}


def network(name, **options):
    """In evaluation mode, with weights that are no initial ones: norms have statistics, and branches are there."""
    torch.manual_seed(0)
    kind, own = NETWORKS[name]
    tiny = {} if kind == "lambda_resnet_tiny" else TINY
    model = create_model(kind, **{**tiny, **own, **options})
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1 and tensor.numel() > 1:
            tensor.mul_(torch.rand(tensor.shape) / 2 + 0.75)
    return model.eval()
