"""Lambda layers for long sequences and images: exact, fast, in linear memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambda_seq import functional
    from lambda_seq.inference.predictor import load_predictor
    from lambda_seq.layers import LambdaLayer1d, LambdaLayer2d, param_groups
    from lambda_seq.models import (
        LambdaEncoder,
        LambdaLM,
        LambdaResNet,
        create_model,
        from_pretrained,
        list_models,
        list_pretrained,
    )

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
    "list_pretrained",
    "load_predictor",
    "param_groups",
]

# Imported where they are first asked for, so that `lambda-seq --help` need not wait for torch.
_MODULES = ("functional", "layers", "models", "inference", "parallel", "interop")
_PLACES = dict.fromkeys(("LambdaLayer1d", "LambdaLayer2d", "param_groups"), "layers")
_PLACES["load_predictor"] = "inference.predictor"  # others are in models


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"lambda_seq.{name}")
    if name in __all__:
        value = getattr(import_module(f"lambda_seq.{_PLACES.get(name, 'models')}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lambda_seq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
