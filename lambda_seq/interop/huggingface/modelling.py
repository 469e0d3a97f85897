"""What all models have: the network in them, inputs by the names of transformers, hidden states and losses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lambda_seq.interop.huggingface.configuration import LambdaSeqConfig
from lambda_seq.models.heads.base import Differences
from lambda_seq.models.model import Model
from lambda_seq.models.registry import advised, create_model
from lambda_seq.models.vision.masking import mean, strided

PREFIX = "network"  # the attribute that holds the network, in front of the names of its weights
IGNORING = ("classes", "positions", "tokens")  # heads whose targets are unknown where they are −100
NAMES = {  # of the kinds of input, as transformers calls them
    "tokens": "input_ids",
    "waveform": "input_values",
    "features": "input_features",
    "image": "pixel_values",
}


class LambdaSeqPreTrainedModel(PreTrainedModel):
    """A network of lambda_seq as a model of transformers: `model.network` computes all there is.

    Weights start as those of `create_model`, and what a file lacks is drawn as there. Gradients are not checkpointed.

    Args:
        config: of the network; its options become those of the network that was built.
        network: to take in, with its weights, in place of a new one; it is the config's.

    Raises:
        ValueError: the class is for networks that take or answer something else.
    """

    config_class = LambdaSeqConfig
    base_model_prefix = PREFIX
    # Private to transformers, whose way to say so it is: a language model's output may be its embedding
    _tied_weights_keys = {f"{PREFIX}.head.weight": f"{PREFIX}.stem.embedding.weight"}  # noqa: RUF012 - as there
    kinds = tuple(NAMES)  # what networks of the class take
    named: str | None = None  # what the input is called; None for what its kind is

    def __init__(self, config: LambdaSeqConfig, network: Model | None = None) -> None:
        super().__init__(config)
        name, options = config.model, self.options_for(config)
        self.network: Model = create_model(name, **options) if network is None else network
        config.options = dict(self.network.options or options)
        self.network.preprocessing = config.preprocessing
        self.network.labels = config.labels
        self.main_input_name = self.named or NAMES[self.network.input_kind]
        self.register_load_state_dict_pre_hook(with_prefix)
        self.post_init()

    @classmethod
    def options_for(cls, config: LambdaSeqConfig) -> dict[str, Any]:
        """Options of the network that the class builds of a config.

        Raises:
            ValueError: the class is for networks that take or answer something else.
        """
        facts = config.facts
        if facts.kind not in cls.kinds:
            fitting = " or ".join(advised(kind) for kind in cls.kinds)
            raise ValueError(
                f"model={config.model!r} takes {facts.kind}, but {cls.__name__} is for {' or '.join(cls.kinds)}: give "
                f"{fitting}, or take the class of transformers for {facts.kind}"
            )
        return facts.options

    def init_weights(self) -> None:
        """Nothing but ties: the network has drawn its weights."""
        self.tie_weights(recompute_mapping=False)

    # Private to transformers, and its only way to say how weights are drawn that a file lacks
    def _init_weights(self, module: nn.Module) -> None:
        reset: Any = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()

    def get_input_embeddings(self) -> nn.Module:
        """The vectors of token ids.

        Raises:
            NotImplementedError: the network has none.
        """
        embedding: Any = getattr(getattr(self.network, "stem", None), "embedding", None)
        if not isinstance(embedding, nn.Module):
            raise NotImplementedError(f"model={self.config.model!r} takes no tokens of which each has a vector")
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Take other vectors of token ids; of another number the options have to say so, by vocab_size."""
        self.get_input_embeddings()
        self.network.stem.embedding = value  # type: ignore[union-attr]

    def get_output_embeddings(self) -> nn.Module | None:
        """What makes logits of token ids, of a language model; None for others."""
        return self.network.head if self.can_generate() else None  # type: ignore[return-value]

    def resize_token_embeddings(self, *given: Any, **options: Any) -> nn.Module:
        """Not possible: the number of ids is an option of the network.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "resize_token_embeddings: the number of token ids is an option of the network; construct it with "
            f"options={{..., 'vocab_size': {given[0] if given else 'N'}}}, and load weights with "
            "ignore_mismatched_sizes=True"
        )

    @contextmanager
    def embedded(self, vectors: Float[Tensor, "B N C"] | None) -> Iterator[None]:
        """Within it the network takes these vectors for those of its token ids."""
        if vectors is None:
            yield
            return
        handle = self.get_input_embeddings().register_forward_hook(lambda *_: vectors)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def recorded(self, wanted: bool) -> Iterator[list[Tensor]]:
        """Within it what goes into the first block, or stage, and comes out of each is kept, if it is wanted."""
        found: list[Tensor] = []
        layers = self.network.blocks if hasattr(self.network, "blocks") else getattr(self.network, "stages", [])
        handles = []
        for index, layer in enumerate(layers if wanted else []):  # type: ignore[arg-type]
            if not index:
                handles.append(layer.register_forward_pre_hook(lambda _, given: found.append(given[0])))
            handles.append(layer.register_forward_hook(lambda _, given, output: found.append(output)))
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def switches(
        self, output_hidden_states: bool | None, output_attentions: bool | None, return_dict: bool | None
    ) -> tuple[bool, bool]:
        """Whether hidden states are wanted, and whether the output has names.

        Raises:
            ValueError: attention maps are wanted.
        """
        if output_attentions or (output_attentions is None and self.config.output_attentions):
            raise ValueError("output_attentions=True: lambda layers have no maps of attention; leave it out")
        hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return bool(hidden), bool(self.config.return_dict if return_dict is None else return_dict)

    def token_input(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Token ids (B, N); any where their vectors are given.

        Raises:
            ValueError: both, or neither.
        """
        if (input_ids is None) == (inputs_embeds is None):
            given = "both" if input_ids is not None else "neither"
            raise ValueError(f"input_ids and inputs_embeds: {given} given; give one of them")
        if inputs_embeds is None:
            assert input_ids is not None
            return input_ids
        return torch.zeros(inputs_embeds.shape[:2], dtype=torch.int64, device=inputs_embeds.device)

    def image_input(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, C, H, W), or for networks of sequences their pixels in reading order, (B, H·W, C)."""
        return pixel_values.flatten(2).mT if self.network.input_kind == "features" else pixel_values

    def loss_of(
        self, logits: Tensor, labels: Tensor, mask: Bool[Tensor, "B M"] | None, items: Tensor | int | None
    ) -> Float[Tensor, ""]:
        """The loss of the network's objective: its mean, or its sum divided by `items`."""
        objective = self.network.objective
        if objective.name not in IGNORING:
            labels = labels.to(logits.dtype).reshape(logits.shape)
        loss, count = objective.loss(logits, labels, mask)
        return loss if items is None else loss * count / items

    def said(self, logits: Tensor) -> Tensor:
        """Logits as transformers takes them: of numbers these themselves."""
        objective = self.network.objective
        return objective.answers(logits) if isinstance(objective, Differences) else logits

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether `Trainer` says of how many answers the mean is, over all batches of a step."""
        return self.network.objective.name in IGNORING


def bools(mask: Tensor | None) -> Bool[Tensor, "..."] | None:
    """A mask of ones and zeros as True and False."""
    return None if mask is None else mask.bool()


def with_prefix(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let `load_state_dict` take the names in files, as `Trainer` does when it goes on, beside those of the model."""
    for name in [name for name in weights if name.startswith(prefix)]:
        rest = name.removeprefix(prefix)
        if not rest.startswith(f"{PREFIX}."):
            weights[f"{prefix}{PREFIX}.{rest}"] = weights.pop(name)


class LambdaSeqModel(LambdaSeqPreTrainedModel):
    """Features of any network, without its head, which stays in the file."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_values: Tensor | None = None,
        input_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """A vector for each position, and one for the whole.

        Args:
            input_ids: (B, N), of networks that take tokens.
            attention_mask: (B, N), nonzero at real positions.
            inputs_embeds: (B, N, C) in place of input_ids: what `get_input_embeddings()` gives for them.
            input_values: samples (B, N), of networks that take these.
            input_features: (B, N, C), of networks that take these.
            pixel_values: (B, C, H, W), standardised.
            pixel_mask: (B, H, W), nonzero at real pixels.
            output_hidden_states: whether what goes into the first block, or stage, and comes out of each is given, too.
            output_attentions: there are none.
            return_dict: whether the output has names.

        Returns:
            last_hidden_state (B, M, dim), behind strides of M frames, or (B, C, h, w) of pictures; pooler_output
            (B, dim), what the head reads of the whole, None where it answers for each position; hidden_states.

        Raises:
            ValueError: not the input that the network takes.
        """
        hidden, named = self.switches(output_hidden_states, output_attentions, return_dict)
        given = {"tokens": input_ids if inputs_embeds is None else inputs_embeds, "waveform": input_values}
        given |= {"features": input_features if pixel_values is None else pixel_values, "image": pixel_values}
        kind = self.network.input_kind
        x = given[kind]
        if x is None:
            raise ValueError(f"{NAMES[kind]} is missing: model={self.config.model!r} takes {kind}")
        if kind == "tokens":
            x = self.token_input(input_ids, inputs_embeds)
        elif pixel_values is not None:
            x = self.image_input(pixel_values)
        mask = bools(pixel_mask if kind == "image" else attention_mask)
        with self.embedded(inputs_embeds), self.recorded(hidden) as states:
            found: Any = self.network.features(x, mask)  # type: ignore[operator]
        features, real = found if isinstance(found, tuple) else (found, mask)
        pooled = self._pooled(features, real)
        output = BaseModelOutputWithPooling(
            last_hidden_state=features, pooler_output=pooled, hidden_states=tuple(states) if hidden else None
        )
        return output if named else output.to_tuple()

    def _pooled(self, features: Tensor, mask: Tensor | None) -> Tensor | None:
        if features.ndim == 4:  # maps (B, C, h, w)
            if mask is not None:
                mask = strided(mask, -(-mask.shape[-1] // features.shape[-1]))
            return mean(features, mask)
        pool: Any = getattr(self.network, "pool", None)
        return None if pool is None else pool(features, mask)
