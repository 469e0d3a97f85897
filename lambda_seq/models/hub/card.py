"""The model card: README.md of a saved model, which the hub shows."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from lambda_seq.models.inputs import INPUTS
from lambda_seq.models.words import takes_words

if TYPE_CHECKING:
    from lambda_seq.models.model import Model

MOST_LABELS = 100
LETTERS = {"dna": "ACGTTGCATGCA", "protein": "MKTAYIAKQR"}  # sequences of alphabets


def model_card(model: Model, config: dict[str, Any], *, tokenized: bool, text: str | None, where: str) -> str:
    """Markdown: what the model is, its options, parameters, labels, and how to load it.

    Args:
        model: a network of the registry.
        config: of the saved model.
        tokenized: whether a tokenizer is saved with it.
        text: what its maker says: data, metrics, limits.
        where: folder or repository to load it from.
    """
    generates = hasattr(model, "generate")
    task = "text-generation" if generates else model.objective.pipeline(model.input_kind)
    kind = f"pipeline_tag: {task}\n" if task else ""
    takes = model.input_kind
    words = takes_words(config["preprocessing"])
    letters = _letters(config["preprocessing"] or {})
    raw = _raw(config["preprocessing"] or {}, generates)
    if words:
        takes += ", words as hashes"
    elif model.vocab_size is not None:
        takes += f", {model.vocab_size:,} ids" + (", made by tokenizer.json" if tokenized else "")
    about = inspect.cleandoc(type(model).__doc__ or "").split("\n\n")[0].replace("\n", " ")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = [
        ("network", f"`{config['model']}`, a `{type(model).__name__}`"),
        ("parameters", f"{parameters:,}"),
        ("input", takes),
        ("output", model.objective.answer.format(f"{model.num_classes:,}") + (", the next one" if generates else "")),
        ("saved by", f"lambda_seq {config['library_version']}"),
    ]
    parts = [
        f"---\nlibrary_name: lambda_seq\n{kind}tags:\n- lambda-networks\n- lambda_seq\n---",
        f"# {config['model']}",
        about,
        *([text.strip()] if text else []),
        "\n".join(["| | |", "| :-- | :-- |", *(f"| {name} | {value} |" for name, value in facts)]),
        "## Use",
        *([f"```python\n{_predictor(raw, where, generates)}\n```", "Or of inputs that were prepared:"] if raw else []),
        f"```python\n{_usage(model, where, tokenized, generates, words, letters)}\n```",
        *_labels(config["labels"]),
        "## Options",
        _json(config["options"]),
        *(["## Preprocessing", _json(config["preprocessing"])] if config["preprocessing"] else []),
    ]
    return "\n\n".join(parts) + "\n"


def _raw(preprocessing: dict[str, Any], generates: bool) -> str | None:
    """Inputs as a person has them, as code; None of a model that does not say how these are read."""
    if "clip_length" in preprocessing.get("audio", {}):
        return '"one.wav", "another.mp3"'
    if "series" in preprocessing:
        return '"one.csv", "another.npy"'
    if "size" in preprocessing:
        return '"one.png", "another.jpg"'
    if letters := _letters(preprocessing):
        return f'"{letters}"'
    tokens = preprocessing.get("tokens", {})
    return '"some text", "another"' if "part" in tokens or (tokens and generates) else None


def _letters(preprocessing: dict[str, Any]) -> str | None:
    """A sequence of the alphabet that is read; None of other inputs."""
    tokens = preprocessing.get("tokens")
    return LETTERS.get(tokens.get("kind", "")) if isinstance(tokens, dict) else None


def _predictor(raw: str, where: str, generates: bool) -> str:
    """Code that needs nothing but raw inputs."""
    lines = ["from lambda_seq import load_predictor", "", f"predictor = load_predictor({where!r})"]
    if generates:
        return "\n".join([*lines, 'print(predictor("some text", max_new_tokens=100, temperature=0.8).text)'])
    return "\n".join([*lines, f"for found in predictor([{raw}]):", "    print(found)"])


def _usage(model: Model, where: str, tokenized: bool, generates: bool, words: bool, letters: str | None) -> str:
    lines = ["import torch", "from lambda_seq import from_pretrained"]
    lines += [*(["from lambda_seq.models.words import word_ids"] if words else []), ""]
    lines.append(f"model = from_pretrained({where!r})")
    if words:
        lines.append('x = torch.tensor([word_ids("some text")])  # (B, N)')
    elif letters:
        lines[1:1] = ["from lambda_seq.inference.tokens import Tokens"]
        lines.append(f'x = torch.from_numpy(Tokens.of(model).encode("{letters}"))[None]  # (B, N)')
    elif tokenized:
        lines.append('x = torch.tensor([model.tokenizer.encode("some text").ids])  # (B, N)')
    else:
        example = INPUTS.get(model.input_kind, INPUTS["features"]).example
        channels = (model.options or {}).get("in_channels") or (3 if model.input_kind == "image" else 1)
        lines.append(example.format(in_channels=channels))
    if generates:
        lines.append("new = model.generate(x, 100, temperature=0.8)")
    else:
        lines += ["logits = model(x)", f"answer = model.objective.answers(logits)  # {model.objective.said}"]
    return "\n".join(lines)


def _labels(labels: list[str] | None) -> list[str]:
    if not labels:
        return []
    lines = [f"{index}. `{label}`" for index, label in enumerate(labels[:MOST_LABELS])]
    more = [f"and {len(labels) - MOST_LABELS:,} more in config.json"] if len(labels) > MOST_LABELS else []
    return ["## Labels", "\n".join(lines), *more]


def _json(value: dict[str, Any]) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"
