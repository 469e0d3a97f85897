"""Lambda layers for long sequences and images: exact, fast, in linear memory."""

from lambda_seq import functional
from lambda_seq.layers import LambdaLayer1d, LambdaLayer2d
from lambda_seq.models import LambdaEncoder, LambdaLM, LambdaResNet, create_model, from_pretrained, list_models

__version__ = "0.1.0"

__all__ = [
    "LambdaEncoder",
    "LambdaLM",
    "LambdaLayer1d",
    "LambdaLayer2d",
    "LambdaResNet",
    "create_model",
    "from_pretrained",
    "functional",
    "list_models",
]
