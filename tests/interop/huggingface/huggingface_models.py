"""Tiny networks of each kind for the tests of Hugging Face's classes, with what a saved model says of its inputs."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from lambda_seq.models import Model, create_model

TINY = {"dim": 16, "depth": 2, "heads": 2, "dim_key": 4, "scope": 5}
WORDS = ("<pad>", "a", "good", "bad", "film", "it", "is", "?")
TEXTS = ["it is a good film", "a bad film ?", "good", "is it bad ? it is a bad , bad film"]
AUDIO = {"sampling_rate": 8000, "clip_length": 4000, "evaluate": "whole", "max_length": 4000, "sample_bits": 16}
FRAMES = {"representation": "log_mel", "n_mels": 8, "n_fft": 256, "hop_length": 80}
PIXELS = {"mean": [120.0, 110.0, 100.0], "std": [60.0, 50.0, 40.0], "size": [12, 10], "background": "white"}

NETWORKS = {
    "texts": ("lambda_encoder", {"num_classes": 3, **TINY}),
    "words": ("lambda_encoder", {"num_classes": 3, "vocab_size": len(WORDS), "strides": [2], **TINY}),
    "tags": ("lambda_encoder", {"head": "positions", "num_classes": 4, "vocab_size": len(WORDS), **TINY}),
    "lm": ("lambda_lm", {"vocab_size": 257, **TINY}),
    "clips": ("lambda_encoder", {"num_classes": 3, "stem": "waveform", "strides": [8, 4], **TINY}),
    "frames": ("lambda_encoder", {"num_classes": 3, "stem": "features", "in_channels": 8, **TINY}),
    "pictures": ("lambda_resnet_tiny", {"num_classes": 3, "width": 8}),
    "pixels": ("lambda_encoder", {"num_classes": 3, "stem": "features", "in_channels": 3, **TINY}),
}
READ = {
    "texts": {"tokens": {"kind": "bytes", "part": "start", "max_length": 64}},
    "words": {"tokens": {"kind": "tokenizer", "vocab_size": len(WORDS), "part": "start", "max_length": 8}},
    "tags": {"tokens": {"kind": "tokenizer", "vocab_size": len(WORDS), "part": "start", "max_length": 64}},
    "lm": {"tokens": {"kind": "bytes", "vocab_size": 257, "pad": 0}},
    "clips": {"audio": AUDIO},
    "frames": {"audio": {**AUDIO, **FRAMES}},
    "pictures": PIXELS,
    "pixels": {**PIXELS, "input": "features"},
}
LABELS = ["no", "perhaps", "yes", "never"]


def tokenizer() -> Tokenizer:
    """A tokenizer of a few words."""
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<pad>"])
    return made


def build(kind: str, **options) -> Model:
    """A small network of this kind, always with the same weights, that says how its inputs are read."""
    name, own = NETWORKS[kind]
    torch.manual_seed(0)
    model = create_model(name, **{**own, **options}).eval()
    model.preprocessing = {"version": 1, **READ[kind]}
    if model.objective.name in ("classes", "positions", "labels"):
        model.labels = LABELS[: model.num_classes]
    if kind in ("words", "tags"):
        model.tokenizer = tokenizer()
    return model


def draw(kind: str, rows: int = 2) -> dict[str, torch.Tensor]:
    """An input by the names of transformers, the last row padded where that can be."""
    torch.manual_seed(1)
    if kind in ("pictures", "pixels"):
        return {"pixel_values": torch.randn(rows, 3, 12, 10)}
    mask = torch.ones(rows, 24, dtype=torch.int64)
    mask[-1, 17:] = 0
    if kind == "clips":
        mask = mask.repeat_interleave(32, 1)
        return {"input_values": torch.randn(rows, 768), "attention_mask": mask}
    if kind == "frames":
        return {"input_features": torch.randn(rows, 24, 8), "attention_mask": mask}
    most = NETWORKS[kind][1].get("vocab_size", 257)
    return {"input_ids": torch.randint(1, most, (rows, 24)), "attention_mask": mask}


def ours(kind: str, model: Model, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """What our own model says of such an input."""
    x = next(value for name, value in given.items() if name != "attention_mask")
    mask = given["attention_mask"].bool() if "attention_mask" in given else None
    x = x.flatten(2).mT if kind == "pixels" else x
    with torch.no_grad():
        return model(x) if mask is None else model(x, mask)


def clip(seconds: float = 0.4, rate: int = 8000, seed: int = 0) -> np.ndarray:
    """Samples of a clip."""
    return (np.random.default_rng(seed).standard_normal(int(seconds * rate)) / 8).astype(np.float32)


def picture(seed: int = 0, size: tuple[int, int] = (20, 15)) -> np.ndarray:
    """Bytes of a picture."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
