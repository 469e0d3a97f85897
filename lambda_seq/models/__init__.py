"""Networks and their registry: LambdaResNet for pictures, LambdaEncoder for sequences, LambdaLM for language."""

from lambda_seq.models import family as family  # registers the names
from lambda_seq.models.encoder import LambdaEncoder
from lambda_seq.models.flops import count_flops
from lambda_seq.models.language_model import LambdaLM
from lambda_seq.models.registry import Model, accepted_options, create_model, list_models, register_model
from lambda_seq.models.resnet import LambdaResNet
from lambda_seq.models.sharing import from_pretrained
from lambda_seq.models.streaming import state_bytes
from lambda_seq.models.tiered import TieredLambdaResNet

__all__ = [
    "LambdaEncoder",
    "LambdaLM",
    "LambdaResNet",
    "Model",
    "TieredLambdaResNet",
    "accepted_options",
    "count_flops",
    "create_model",
    "from_pretrained",
    "list_models",
    "register_model",
    "state_bytes",
]
