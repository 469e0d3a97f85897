"""LambdaSeqConfig: the name and options of a network of the registry, as a configuration of transformers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from transformers import PreTrainedConfig

from lambda_seq.models.model import Model
from lambda_seq.models.registry import create_model, is_own
from lambda_seq.models.sequence.generation import GenerativeModel

PROBLEMS = {  # heads that answer once for an input, by what transformers calls their problem
    "single_label_classification": "classes",
    "multi_label_classification": "labels",
    "regression": "numbers",
}
OWN = ("library", "library_version", "save")  # entries of our config.json that say who wrote it
SAID = ("vocab_size", "hidden_size", "num_hidden_layers")  # what others ask a configuration for, by their names for it


class Facts(NamedTuple):
    """What a network is, by its name and options.

    Attributes:
        options: all, those that the name stands for included.
        kind: what it takes: "tokens", "features", "waveform" or "image".
        head: name of its objective.
        counted: whether num_classes says how many outputs it has.
        num_classes: length of the last dimension of its output.
        vocab_size: number of token ids; None where it takes no tokens.
        dim: channels of a position of sequences, or of the first stage of pictures; None where it does not say.
        depth: number of blocks, or of stages.
        max_length: longest input; None for any.
        generates: whether it is a language model.
        tied: whether its output shares the weights of its embedding.
    """

    options: dict[str, Any]
    kind: str
    head: str
    counted: bool
    num_classes: int
    vocab_size: int | None
    dim: int | None
    depth: int
    max_length: int | None
    generates: bool
    tied: bool


def facts_of(network: Model) -> Facts:
    """The facts of a network that is there."""
    layers = getattr(network, "blocks", None) or getattr(network, "stages", None) or ()
    stem: Any = getattr(network, "stem", None)
    embedding, head = getattr(stem, "embedding", None), getattr(network, "head", None)
    return Facts(
        options=dict(network.options or {}),
        kind=network.input_kind,
        head=network.objective.name,
        counted=network.objective.counted,
        num_classes=network.num_classes,
        vocab_size=network.vocab_size,
        dim=getattr(network, "dim", None) or (network.options or {}).get("dim"),
        depth=len(list(layers)),
        max_length=getattr(network, "max_length", None),
        generates=isinstance(network, GenerativeModel),
        tied=embedding is not None and getattr(head, "weight", None) is getattr(embedding, "weight", embedding),
    )


def sketch(model: str, options: Mapping[str, Any]) -> Model:
    """The network without memory; torch's random numbers stay as they are.

    Raises:
        ValueError, TypeError: as `create_model`.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the construction with memory says the same
        try:
            with torch.device("meta"):
                return create_model(model, **options)
        except RuntimeError:
            if is_own(model):
                raise
            return create_model(model, **options)  # others need not construct on the meta device


@lru_cache(maxsize=64)
def _facts(model: str, options: str) -> Facts:
    return facts_of(sketch(model, json.loads(options)))


class LambdaSeqConfig(PreTrainedConfig):
    """A network of `lambda_seq.list_models()`, and what its inputs and answers are.

    As a file it is a config.json of ours with the entries of transformers beside, so that both libraries read it.

    Args:
        model: name for `create_model`, or of a class: "lambda_encoder", "lambda_lm", "lambda_resnet50", …
        options: of the network, numbers, strings, lists and dicts; `lambda_seq.models.accepted_options(model)` lists
            them. `num_labels` goes before their num_classes.
        preprocessing: how inputs are read, as saved models have it; None where that is not known.
        labels: names of the classes, in order; None for `id2label`, or those of transformers, LABEL_0 and so on.
        **others: of `transformers.PreTrainedConfig`.

    Raises:
        ValueError, TypeError: no network has this name or these options.
    """

    model_type: ClassVar[str] = "lambda_seq"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache"]

    model: str = "lambda_encoder"
    options: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **others: Any) -> None:
        """Take what our own config.json has, and how many classes the network has where nothing else says it."""
        own: Any = self  # whose fields transformers declares
        for name in OWN:
            others.pop(name, None)
        labels = others.pop("labels", None)
        self.options = dict(self.options or {})
        if own.id2label is None and labels is not None:
            own.id2label = dict(enumerate(labels))
        known, facts = own.id2label is not None or others.get("num_labels") is not None, self.facts
        if not known and facts.counted:
            others["num_labels"] = facts.num_classes
        for name in SAID:
            if name in others and others[name] != getattr(self, name):
                raise ValueError(
                    f"{name}={others[name]}: the network of model={self.model!r} and its options has "
                    f"{getattr(self, name)}; give an option of it instead"
                )
            others.pop(name, None)
        self.tie_word_embeddings = facts.tied
        if own.problem_type is None and facts.head in ("labels", "numbers"):  # pipelines ask for these
            own.problem_type = next(problem for problem, head in PROBLEMS.items() if head == facts.head)
        super().__post_init__(**others)
        if own.id2label is not None:
            own.label2id = {label: index for index, label in own.id2label.items()}

    @property
    def facts(self) -> Facts:
        """What the network of this name and these options is."""
        return _facts(self.model, json.dumps(self.options, sort_keys=True))

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes, in order; None for those that transformers gives where nothing is known."""
        given: Any = self.id2label or {}
        names = [given[index] for index in range(len(given))]
        default = [f"LABEL_{index}" for index in range(len(names))]
        return None if names == default or len(names) != self.facts.num_classes else names

    @property
    def vocab_size(self) -> int | None:
        """Number of token ids; None where the network takes no tokens."""
        return self.facts.vocab_size

    @property
    def hidden_size(self) -> int | None:
        """Channels of a position."""
        return self.facts.dim

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks, or of stages."""
        return self.facts.depth

    def to_dict(self) -> dict[str, Any]:
        """All entries, those of our own config.json included."""
        from lambda_seq import __version__

        own = {"library": "lambda_seq", "library_version": __version__, "labels": self.labels}
        said = {name: getattr(self, name) for name in SAID if getattr(self, name) is not None}
        return {**super().to_dict(), **own, **said}
