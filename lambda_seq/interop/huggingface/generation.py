"""Language models: `generate` from the state that streams carry, as a cache of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from lambda_seq import functional as LF
from lambda_seq.functional.scan import ScanState
from lambda_seq.functional.states import taken_apart
from lambda_seq.interop.huggingface.configuration import LambdaSeqConfig
from lambda_seq.interop.huggingface.modelling import LambdaSeqPreTrainedModel, bools
from lambda_seq.models.sequence.streaming import LanguageModelState

PREFILL = 2048  # tokens of a prompt that are read at once, as our own `generate` does
UNDONE = "a state is a sum over what was read, of which nothing can be taken back"


class LambdaSeqCache(Cache):
    """The state of a language model after what it has read, where others keep keys and values.

    With local scope, exponential positions or none its size does not depend on the context.

    Args:
        state: to begin with; None for the beginning.
    """

    def __init__(self, state: LanguageModelState | None = None) -> None:
        super().__init__(layers=[])
        self.state = state

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of tokens read."""
        return 0 if self.state is None else self.state.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """No limit of its own: −1."""
        return -1

    @property
    def is_initialized(self) -> bool:
        """Whether anything was read."""
        return self.state is not None

    @property
    def is_compileable(self) -> bool:
        """Whether tensors of the state stay where they are; they do not."""
        return False

    @property
    def is_croppable(self) -> bool:
        """Whether tokens can be taken back; they cannot."""
        return False

    @property
    def is_linear(self) -> list[bool]:
        """Of each layer whether it does not count what it has read; this cache does."""
        return [False]

    @property
    def batch_size(self) -> int | None:
        """Number of rows; None where nothing was read."""
        leaves = [] if self.state is None else taken_apart(self.state)[0]
        return leaves[0].shape[0] if leaves else None

    def reset(self) -> None:
        """Begin anew."""
        self.state = None

    def crop(self, tokens_to_remove: int) -> None:
        """Not possible.

        Raises:
            NotImplementedError: tokens are to be taken back.
        """
        if tokens_to_remove:
            raise NotImplementedError(f"tokens_to_remove={tokens_to_remove}: {UNDONE}; begin with a new cache")

    def reorder_cache(self, beam_idx: Int[Tensor, " B"]) -> None:
        """Take the rows of these beams."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Int[Tensor, " B"]) -> None:
        """Take these rows."""
        self._each(lambda leaf: leaf.index_select(0, indices.to(leaf.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row so many times, one after another."""
        self._each(lambda leaf: leaf.repeat_interleave(repeats, 0))

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.state is not None:
            leaves, put_together = taken_apart(self.state)
            self.state = put_together([change(leaf) for leaf in leaves])


class LambdaSeqForCausalLM(LambdaSeqPreTrainedModel, GenerationMixin):
    """A language model, such as lambda_lm.

    `generate` reads a prompt in pieces and carries a state on, so that with a local scope neither time nor memory of a
    token depend on the context. Greedy tokens are those of our own `generate`. What cannot be undone in a state is
    refused: assisted generation.
    """

    kinds = ("tokens",)
    # Private to transformers, which offers nothing else: no cache of keys and values is made, none is taken back
    _is_stateful = True

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    @classmethod
    def options_for(cls, config: LambdaSeqConfig) -> dict[str, Any]:
        """The network's.

        Raises:
            ValueError: it is no language model.
        """
        options = super().options_for(config)
        if not config.facts.generates:
            raise ValueError(
                f"model={config.model!r} does not predict the next token: give a language model, such as lambda_lm, or "
                "take AutoModelForSequenceClassification or AutoModelForTokenClassification"
            )
        return options

    def adjust_generation_fn(self, *given: Any, **options: Any) -> None:
        """Generation ends with the padding token, which divides documents in training, unless a file says otherwise."""
        super().adjust_generation_fn(*given, **options)
        ended_by(self, ((self.config.preprocessing or {}).get("tokens") or {}).get("pad"))

    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Tensor | None = None,
        cache: LambdaSeqCache | None = None,
        use_cache: bool | None = None,
        inputs_embeds: Float[Tensor, "B T C"] | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Logits of the token behind each position, and the loss where there are labels.

        Args:
            input_ids: with a cache those that follow what it has read.
            attention_mask: (B, N), nonzero at real positions; with a cache of all positions, read ones included.
                Prompts of different lengths are padded on their left, and read one length after another.
            cache: what an earlier call returned; it is carried on in place.
            use_cache: whether a cache is returned; None where one is given.
            inputs_embeds: (B, T, C) in place of input_ids: what `get_input_embeddings()` gives for them.
            labels: the ids themselves, −100 where they do not count; those behind each position are predicted.
            logits_to_keep: of how many last positions; 0 for all.
            output_hidden_states: whether what goes into the first block and comes out of each is given, too; without a
                cache only.
            output_attentions: there are none.
            return_dict: whether the output has names.
            num_items_in_batch: what the sum of losses is divided by, in place of their number.

        Raises:
            TypeError: a cache of another kind.
            ValueError: padding behind or between real positions with a cache, or hidden states with one.
        """
        hidden, named = self.switches(output_hidden_states, output_attentions, return_dict)
        tokens, mask = self.token_input(input_ids, inputs_embeds), bools(attention_mask)
        states: list[Tensor] = []
        if cache is None and not use_cache:
            with self.embedded(inputs_embeds), self.recorded(hidden) as states:
                features = self.network.features(tokens, mask)  # type: ignore[operator]
        else:
            if hidden:
                raise ValueError("output_hidden_states=True with a cache: streams keep none; give use_cache=False")
            cache = LambdaSeqCache() if cache is None else cache
            if not isinstance(cache, LambdaSeqCache):
                raise TypeError(f"cache is {type(cache).__name__}: expected a LambdaSeqCache, or None for a new one")
            features = self._read(tokens, mask, cache, inputs_embeds)
        logits = self.network.head(features[:, -logits_to_keep:])  # type: ignore[operator]  # (B, T, ids)
        loss = None
        if labels is not None:
            if logits.shape[1] != labels.shape[1]:
                raise ValueError(f"logits_to_keep={logits_to_keep} with labels of all positions: leave it out")
            loss = self.loss_of(logits[:, :-1], labels[:, 1:], None, num_items_in_batch)
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits, cache=cache, hidden_states=tuple(states) if hidden else None
        )
        return output if named else output.to_tuple()

    def _read(
        self, tokens: Tensor, mask: Tensor | None, cache: LambdaSeqCache, vectors: Tensor | None
    ) -> Float[Tensor, "B T dim"]:
        """Features of new tokens, of which the cache's state is carried on; zeros at padding."""
        batch, length = tokens.shape
        lengths = [length] * batch
        # Single tokens are real, generated ones; to ask would wait for the device
        if mask is not None and (length > 1 or cache.state is None):
            lengths = _real_lengths(mask[:, -length:], begun=cache.state is not None)
        if min(lengths) == length:
            begin = self.network.init_state(batch) if cache.state is None else cache.state  # type: ignore[operator]
            features, cache.state = self._advance(tokens, begin, vectors)
            return features
        parts, states, order = [], [], []
        for real in sorted(set(lengths)):
            rows = torch.tensor([row for row, one in enumerate(lengths) if one == real], device=tokens.device)
            begin = self.network.init_state(len(rows))  # type: ignore[operator]
            own = None if vectors is None else vectors[rows, length - real :]
            features, state = self._advance(tokens[rows, length - real :], begin, own)
            parts.append(F.pad(features, (0, 0, length - real, 0)))
            states.append(state)
            order.append(rows)
        back = torch.cat(order).argsort()
        cache.state = side_by_side(states)
        cache.batch_select_indices(back)
        return torch.cat(parts)[back]

    def _advance(
        self, tokens: Tensor, state: LanguageModelState, vectors: Tensor | None
    ) -> tuple[Tensor, LanguageModelState]:
        """Features (B, T, dim) of tokens, and the state after them, as our own `generate` steps."""
        step: Any = self.network.step_features
        if tokens.shape[1] == 1 and vectors is None:
            features, state = step(tokens[:, 0], state)
            return features[:, None], state
        found = []
        for begin in range(0, tokens.shape[1], PREFILL):
            piece = slice(begin, begin + PREFILL)
            with self.embedded(None if vectors is None else vectors[:, piece]):
                features, state = step(tokens[:, piece], state)
            found.append(features)
        return torch.cat(found, 1), state


def ended_by(model: LambdaSeqForCausalLM, token: int | None) -> None:
    """Let generation begin, end and pad with a token, where its configuration names none."""
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(model.generation_config, name) is None:
            setattr(model.generation_config, name, token)


def _real_lengths(mask: Bool[Tensor, "B T"], begun: bool) -> list[int]:
    """How many last positions of each row are real.

    Raises:
        ValueError: padding elsewhere than on the left of a prompt.
    """
    lengths = mask.sum(1)
    expected = torch.arange(mask.shape[1], device=mask.device) >= mask.shape[1] - lengths[:, None]
    if not torch.equal(mask, expected) or not lengths.all():
        raise ValueError(
            "attention_mask: a state is carried on from the last position, so prompts are padded on their left, each "
            "with a real token: give the tokenizer padding_side='left'"
        )
    found: list[int] = lengths.tolist()
    if begun and min(found) < mask.shape[1]:
        raise ValueError("attention_mask: padding within what follows a cache; give rows of one length, or a new cache")
    return found


def side_by_side(states: list[LanguageModelState]) -> LanguageModelState:
    """The states of several batches as that of one, exactly: values before a row's first position are zeros."""
    blocks = []
    for streams in zip(*(state.blocks for state in states), strict=True):
        kept = max(stream.values.shape[2] for stream in streams)
        values = [F.pad(stream.values, (0, 0, kept - stream.values.shape[2], 0)) for stream in streams]
        contents = [stream.content for stream in streams if stream.content is not None]
        sums = [stream.sums for stream in streams if stream.sums is not None]
        content = None
        if contents:
            content = ScanState(
                *(torch.cat([getattr(one, name) for one in contents]) for name in ("sums", "norm", "top"))
            )
        seen = max(stream.seen for stream in streams)
        blocks.append(LF.StreamState(seen, content, torch.cat(values), torch.cat(sums) if sums else None))
    return LanguageModelState(max(state.seen for state in states), tuple(blocks))
