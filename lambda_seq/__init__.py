"""Lambda layers for long sequences and images: exact, fast, in linear memory."""

from lambda_seq import functional
from lambda_seq.layers import LambdaLayer1d, LambdaLayer2d
from lambda_seq.models import LambdaEncoder, LambdaResNet, create_model, list_models

__version__ = "0.1.0"

__all__ = [
    "LambdaEncoder",
    "LambdaLayer1d",
    "LambdaLayer2d",
    "LambdaResNet",
    "create_model",
    "functional",
    "list_models",
]
