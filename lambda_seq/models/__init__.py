"""Networks and their registry: LambdaResNet for pictures, LambdaEncoder for sequences."""

from lambda_seq.models import family as family  # registers the names
from lambda_seq.models.encoder import LambdaEncoder
from lambda_seq.models.flops import count_flops
from lambda_seq.models.registry import Model, accepted_options, create_model, list_models, register_model
from lambda_seq.models.resnet import LambdaResNet

__all__ = [
    "LambdaEncoder",
    "LambdaResNet",
    "Model",
    "accepted_options",
    "count_flops",
    "create_model",
    "list_models",
    "register_model",
]
