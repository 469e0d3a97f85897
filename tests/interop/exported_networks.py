"""Small networks of every kind that is exported, for the tests of exports."""

import torch

from lambda_seq import create_model

TINY = {"dim": 16, "heads": 2, "dim_key": 4}
# Every position embedding: local and global tables, local and global multi-scale, exponentials, none
KINDS = {
    "depth": 6,
    "scope": [7, None, 9, None, None, 1],
    "position": ["table", "table", "multiscale", "multiscale", "exponential", False],
    "max_length": 400,
}
ANY_LENGTH = {"depth": 3, "scope": [7, 9, None], "position": ["table", "multiscale", "exponential"]}
NETWORKS = {
    "tokens": ("lambda_encoder", {"stem": "tokens", "num_classes": 3, **ANY_LENGTH}),
    "every position": ("lambda_encoder", {"stem": "tokens", "pool": "attention", **KINDS}),
    "every position, causal": ("lambda_encoder", {"stem": "tokens", "pool": "last", "causal": True, **KINDS}),
    "waveform": ("lambda_encoder", {"stem": "waveform", "head": "labels", "num_classes": 4, "scope": 7, "depth": 2}),
    "features": (
        "lambda_encoder",
        {"stem": "features", "in_channels": 3, "strides": [2, 4], "head": "positions", "num_classes": 5, "depth": 1}
        | {"scope": None, "position": "exponential", "block_norm": "batch", "key_norm": "l2"},
    ),
    "texts": ("lambda_lm", {"vocab_size": 20, "depth": 2, "scope": [8, None], "position": ["table", "exponential"]}),
    "step": ("lambda_lm", {"vocab_size": 20, **KINDS}),
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
