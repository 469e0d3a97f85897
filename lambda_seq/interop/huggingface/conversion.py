"""Our models as those of transformers, and back: the same networks, with the same weights in memory."""

from __future__ import annotations

import os
from typing import Any

from lambda_seq.interop.huggingface.classification import (
    LambdaSeqForAudioClassification,
    LambdaSeqForImageClassification,
    LambdaSeqForSequenceClassification,
    LambdaSeqForTokenClassification,
)
from lambda_seq.interop.huggingface.configuration import Facts, LambdaSeqConfig, facts_of, sketch
from lambda_seq.interop.huggingface.generation import LambdaSeqForCausalLM, ended_by
from lambda_seq.interop.huggingface.modelling import LambdaSeqModel, LambdaSeqPreTrainedModel
from lambda_seq.models.model import Model, from_pretrained
from lambda_seq.models.registry import class_name
from lambda_seq.models.words import takes_words

ONCE = ("classes", "labels", "numbers")


def from_ours(given: Model | str | os.PathLike[str], **options: Any) -> LambdaSeqPreTrainedModel:
    """A model of transformers around one of ours, whose weights it shares; folders of older versions, too.

    Args:
        given: a model, or what `lambda_seq.from_pretrained` takes: a folder, or "owner/name" of the hub.
        options: of `lambda_seq.from_pretrained`.

    Returns:
        The class that its input and head ask for: of language models, classifiers of tokens, texts, clips and pictures;
        `LambdaSeqModel`, its features, of others.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `lambda_seq.from_pretrained`.
        ValueError: the model's class or options cannot be written down, or its weights are of an older version's
            options.
    """
    network = given if isinstance(given, Model) else from_pretrained(given, **options)
    if network.options is None:
        raise ValueError(
            f"{type(network).__name__} was constructed with arguments that have no names, *args: take them by name"
        )
    facts, name = facts_of(network), network.name or class_name(type(network))
    counted = {"num_classes": network.num_classes} if facts.counted else {}
    config = LambdaSeqConfig(
        model=name,
        options={**network.options, **counted} if "num_classes" in network.options else dict(network.options),
        preprocessing=network.preprocessing,
        labels=network.labels,
    )
    expected = {key: tensor.shape for key, tensor in sketch(name, config.options).state_dict().items()}
    found = {key: tensor.shape for key, tensor in network.state_dict().items()}
    if found != expected:
        names = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        raise ValueError(
            f"given: weights are not those of its options ({', '.join(names[:3])}), as of a version that had other "
            "defaults: give the model these options, by model.options, first"
        )
    model = kind_of(facts, network.preprocessing)(config, network)
    if isinstance(model, LambdaSeqForCausalLM) and not takes_words(network.preprocessing):
        from lambda_seq.inference.tokens import Tokens

        ended_by(model, Tokens.of(network).pad)
    return model.train(network.training)


def kind_of(facts: Facts, preprocessing: dict[str, Any] | None) -> type[LambdaSeqPreTrainedModel]:
    """The class for a network of these facts."""
    if facts.generates:
        return LambdaSeqForCausalLM
    if facts.kind == "tokens" and facts.head == "positions":
        return LambdaSeqForTokenClassification
    if facts.head not in ONCE:
        return LambdaSeqModel
    pictures = "mean" in (preprocessing or {}) and "audio" not in (preprocessing or {})
    if facts.kind == "image" or (facts.kind == "features" and pictures):
        return LambdaSeqForImageClassification
    return LambdaSeqForSequenceClassification if facts.kind == "tokens" else LambdaSeqForAudioClassification


def to_ours(model: LambdaSeqPreTrainedModel) -> Model:
    """Our model in one of transformers, whose weights it is: with labels and preprocessing, to be saved or asked.

    A tokenizer is not part of models of transformers: give `save_pretrained` the one that the network was trained with.

    Raises:
        TypeError: no model of this module; of one with adapters, `merge_and_unload()` gives such.
    """
    if not isinstance(model, LambdaSeqPreTrainedModel):
        raise TypeError(
            f"model is {type(model).__name__}: expected a model of lambda_seq.interop.huggingface; of adapters of PEFT "
            "give what model.merge_and_unload() returns"
        )
    network = model.network
    network.labels, network.preprocessing = model.config.labels, model.config.preprocessing
    return network
