"""Classifiers, of texts, their tokens, clips and pictures; numbers and several labels of them as well."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import (
    ImageClassifierOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from lambda_seq.interop.huggingface.configuration import PROBLEMS, LambdaSeqConfig
from lambda_seq.interop.huggingface.modelling import LambdaSeqPreTrainedModel, bools
from lambda_seq.models.registry import accepted_options

Named = Any  # an output of transformers, or a tuple of what it has


class _Classifier(LambdaSeqPreTrainedModel):
    """A network with one of these heads, and what they answer."""

    heads: tuple[str, ...] = tuple(PROBLEMS.values())
    output: type = SequenceClassifierOutput

    @classmethod
    def options_for(cls, config: LambdaSeqConfig) -> dict[str, Any]:
        """The network's, with `num_labels` outputs, and a head that fits `problem_type` where it has another."""
        options, facts = super().options_for(config), config.facts
        wanted = cls._head(config)
        if wanted != facts.head:
            if "head" not in accepted_options(config.model):
                raise ValueError(
                    f"model={config.model!r} answers by head={facts.head!r}, and {cls.__name__} by "
                    f"{' or '.join(map(repr, cls.heads))}: give a network that has the option head, as lambda_encoder"
                )
            of_another = ("head_options", "pool") if wanted == "positions" else ("head_options",)
            options = {name: value for name, value in options.items() if name not in of_another} | {"head": wanted}
        return {**options, "num_classes": config.num_labels}

    @classmethod
    def _head(cls, config: LambdaSeqConfig) -> str:
        """The network's own where it is one of these, unless `problem_type` says another."""
        head = config.facts.head
        if len(cls.heads) == 1:
            return cls.heads[0]
        if config.problem_type is not None:
            return PROBLEMS[config.problem_type]
        if config.num_labels == 1 and "head" not in config.options:
            return "numbers"  # as transformers has it
        return head if head in cls.heads else "classes"

    def answered(
        self,
        x: Tensor,
        mask: Tensor | None,
        labels: Tensor | None,
        items: Tensor | int | None,
        switches: tuple[bool, bool],
        inputs_embeds: Tensor | None = None,
    ) -> Named:
        """What the network says of an input, and how far that is from the labels."""
        hidden, named = switches
        with self.embedded(inputs_embeds), self.recorded(hidden) as states:
            logits = self.network(x, mask)
        each = None if self.network.objective.pooled else mask
        loss = None if labels is None else self.loss_of(logits, labels, each, items)
        output = self.output(loss=loss, logits=self.said(logits), hidden_states=tuple(states) if hidden else None)
        return output if named else output.to_tuple()


class _OfTokens(_Classifier):
    """Classes of token sequences, or of each token."""

    kinds = ("tokens",)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Named:
        """Logits (B, num_labels), of tokens (B, N, num_labels), of regression numbers; the loss if there are labels.

        Args:
            input_ids: (B, N).
            attention_mask: (B, N), nonzero at real positions.
            inputs_embeds: (B, N, C) in place of input_ids: what `get_input_embeddings()` gives for them.
            labels: (B,) class numbers, of tokens (B, N), −100 for none; (B, num_labels) zeros and ones, or numbers, NaN
                for none.
            output_hidden_states: whether what goes into the first block and comes out of each is given, too.
            output_attentions: there are none.
            return_dict: whether the output has names.
            num_items_in_batch: what the sum of losses is divided by, in place of their number.
        """
        switches = self.switches(output_hidden_states, output_attentions, return_dict)
        x = self.token_input(input_ids, inputs_embeds)
        return self.answered(x, bools(attention_mask), labels, num_items_in_batch, switches, inputs_embeds)


class LambdaSeqForSequenceClassification(_OfTokens):
    """Classes, several labels or numbers of token sequences."""


class LambdaSeqForTokenClassification(_OfTokens):
    """A class for each token.

    Raises:
        ValueError: the network has strides, and so answers for frames of several tokens.
    """

    heads, output = ("positions",), TokenClassifierOutput

    def __init__(self, config: LambdaSeqConfig, network: Any = None) -> None:
        super().__init__(config, network)
        stride: Any = getattr(getattr(self.network, "stem", None), "stride", 1)
        if stride > 1:
            raise ValueError(
                f"strides={(self.network.options or {}).get('strides')}: the network answers for frames of {stride} "
                "tokens, none for each; leave strides out"
            )


class LambdaSeqForAudioClassification(_Classifier):
    """Classes, several labels or numbers of clips, as samples or as frames of features."""

    kinds = ("waveform", "features")

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Named:
        """Logits (B, num_labels), of regression the numbers, and the loss where there are labels.

        Args:
            input_values: samples (B, N), of networks that take these.
            attention_mask: (B, N), nonzero at real samples or frames.
            input_features: frames (B, N, C), of networks that take these.
            labels, output_hidden_states, output_attentions, return_dict, num_items_in_batch: as for sequences.

        Raises:
            ValueError: not the input that the network takes.
        """
        switches = self.switches(output_hidden_states, output_attentions, return_dict)
        waveform = self.network.input_kind == "waveform"
        x, other = (input_values, input_features) if waveform else (input_features, input_values)
        if x is None or other is not None:
            wanted = "input_values, samples" if waveform else "input_features, frames"
            raise ValueError(f"model={self.config.model!r} takes {wanted}, and nothing else: give these")
        return self.answered(x, bools(attention_mask), labels, num_items_in_batch, switches)


class LambdaSeqForImageClassification(_Classifier):
    """Classes, several labels or numbers of pictures, by networks of pictures or of sequences of their pixels."""

    kinds, output, named = ("image", "features"), ImageClassifierOutput, "pixel_values"

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Named:
        """Logits (B, num_labels), of regression the numbers, and the loss where there are labels.

        Args:
            pixel_values: (B, C, H, W), standardised as the image processor does it.
            pixel_mask: (B, H, W), nonzero at real pixels, of pictures that are padded below and to their right.
            labels, output_hidden_states, output_attentions, return_dict, num_items_in_batch: as for sequences; hidden
                states of pictures are the maps of the stages.
        """
        switches = self.switches(output_hidden_states, output_attentions, return_dict)
        mask = bools(pixel_mask)
        if mask is not None and self.network.input_kind == "features":
            mask = mask.flatten(1)
        return self.answered(self.image_input(pixel_values), mask, labels, num_items_in_batch, switches)
