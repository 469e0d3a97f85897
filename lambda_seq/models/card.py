"""The model card: README.md of a saved model, which the hub shows."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambda_seq.models.sharing import Pretrained

TASKS = {"image": "image-classification", "tokens": "text-classification", "waveform": "audio-classification"}
MOST_LABELS = 100


def model_card(model: Pretrained, config: dict[str, Any], *, tokenized: bool, text: str | None, where: str) -> str:
    """Markdown: what the model is, its options, parameters, labels, and how to load it.

    Args:
        model: a network of the registry.
        config: of the saved model.
        tokenized: whether a tokenizer is saved with it.
        text: what its maker says: data, metrics, limits.
        where: folder or repository to load it from.
    """
    generates = hasattr(model, "generate")
    task = "text-generation" if generates else TASKS.get(model.input_kind)
    kind = f"pipeline_tag: {task}\n" if task else ""
    takes = model.input_kind
    if model.vocab_size is not None:
        takes += f", {model.vocab_size:,} ids" + (", made by tokenizer.json" if tokenized else "")
    about = inspect.cleandoc(type(model).__doc__ or "").split("\n\n")[0].replace("\n", " ")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = [
        ("network", f"`{config['model']}`, a `{type(model).__name__}`"),
        ("parameters", f"{parameters:,}"),
        ("input", takes),
        ("output", f"logits of {model.num_classes:,} {'tokens, the next one' if generates else 'classes'}"),
        ("saved by", f"lambda_seq {config['library_version']}"),
    ]
    parts = [
        f"---\nlibrary_name: lambda_seq\n{kind}tags:\n- lambda-networks\n- lambda_seq\n---",
        f"# {config['model']}",
        about,
        *([text.strip()] if text else []),
        "\n".join(["| | |", "| :-- | :-- |", *(f"| {name} | {value} |" for name, value in facts)]),
        "## Use",
        f"```python\n{_usage(model, where, tokenized, generates)}\n```",
        *_labels(config["labels"]),
        "## Options",
        _json(config["options"]),
        *(["## Preprocessing", _json(config["preprocessing"])] if config["preprocessing"] else []),
    ]
    return "\n\n".join(parts) + "\n"


def _usage(model: Pretrained, where: str, tokenized: bool, generates: bool) -> str:
    lines = ["import torch", "from lambda_seq import from_pretrained", "", f"model = from_pretrained({where!r})"]
    if model.input_kind == "tokens":
        if tokenized:
            lines.append('x = torch.tensor([model.tokenizer.encode("some text").ids])  # (B, N)')
        else:
            lines.append('x = torch.tensor([list(b"some text")]) + 1  # bytes, (B, N)')
    elif model.input_kind == "image":
        lines.append("x = torch.zeros(1, 3, 224, 224)  # (B, C, H, W)")
    elif model.input_kind == "waveform":
        lines.append("x = torch.zeros(1, 16000)  # samples, (B, N)")
    else:
        lines.append(f"x = torch.zeros(1, 100, {(model.options or {}).get('in_channels') or 1})  # (B, N, C)")
    lines.append("new = model.generate(x, 100, temperature=0.8)" if generates else "logits = model(x)  # (B, classes)")
    return "\n".join(lines)


def _labels(labels: list[str] | None) -> list[str]:
    if not labels:
        return []
    lines = [f"{index}. `{label}`" for index, label in enumerate(labels[:MOST_LABELS])]
    more = [f"and {len(labels) - MOST_LABELS:,} more in config.json"] if len(labels) > MOST_LABELS else []
    return ["## Labels", "\n".join(lines), *more]


def _json(value: dict[str, Any]) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"
