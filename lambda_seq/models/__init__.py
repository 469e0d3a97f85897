"""Networks and their registry: LambdaResNet for pictures, LambdaEncoder for sequences, LambdaLM for language."""

from lambda_seq.models.flops import count_flops
from lambda_seq.models.heads import list_heads
from lambda_seq.models.hub.named import list_pretrained
from lambda_seq.models.model import Model, from_pretrained
from lambda_seq.models.registry import accepted_options, create_model, list_models, register_model
from lambda_seq.models.sequence.encoder import LambdaEncoder
from lambda_seq.models.sequence.language_model import LambdaLM
from lambda_seq.models.sequence.pieces import backward_in_pieces
from lambda_seq.models.sequence.streaming import state_bytes
from lambda_seq.models.vision import family as family  # registers the names
from lambda_seq.models.vision.resnet import LambdaResNet
from lambda_seq.models.vision.tiered import TieredLambdaResNet

__all__ = [
    "LambdaEncoder",
    "LambdaLM",
    "LambdaResNet",
    "Model",
    "TieredLambdaResNet",
    "accepted_options",
    "backward_in_pieces",
    "count_flops",
    "create_model",
    "from_pretrained",
    "list_heads",
    "list_models",
    "list_pretrained",
    "register_model",
    "state_bytes",
]
