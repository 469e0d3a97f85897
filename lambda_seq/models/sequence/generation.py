"""Generation: sampling the next token from a model's logits, over and over, from a state that does not start again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lambda_seq.layers import checks
from lambda_seq.layers.positions.kept import kept_of
from lambda_seq.layers.weights import gathers, place
from lambda_seq.models.model import Model
from lambda_seq.models.sequence.replay import Replay, changes
from lambda_seq.models.sequence.streaming import LanguageModelState

WORTH = 64  # tokens for which a CUDA graph is recorded without being asked for; a guess


class GenerativeModel(Model):
    """A network that predicts the next token from a state, and so generates, by `step_features` and `head`.

    Attributes:
        vocab_size: number of token ids.
        max_length: most tokens that a state can see; None for any number.
        constant_state: whether the size of a state does not depend on the context.
        head: linear map from features to logits.
    """

    vocab_size: int
    max_length: int | None
    constant_state: bool
    head: nn.Linear

    def init_state(self, batch_size: int) -> LanguageModelState:
        """The state before the first token."""
        raise NotImplementedError(f"{type(self).__name__} has no init_state(batch_size)")

    def step_features(self, tokens: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        """Features (B, dim) or (B, T, dim) after the next token (B,) or T tokens (B, T), and the state after them."""
        raise NotImplementedError(f"{type(self).__name__} has no step_features(tokens, state)")

    def generate(
        self,
        prompt: Int[Tensor, "B T"],
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: int | Sequence[int] = (),
        seed: int | None = None,
        prefill: int = 2048,
        pad_id: int = 0,
        cuda_graph: bool | str = "auto",
    ) -> Int[Tensor, "B M"]:
        """The tokens that follow a prompt, M ≤ max_new_tokens of them, without the prompt.

        The prompt is read in pieces of `prefill` tokens, in memory that does not depend on its length, and each new
        token takes one step from the state after it: where `constant_state` is true, time and memory per token do not
        depend on the context either. Works without gradients, and needs a model in evaluation mode.

        All rows go on until each has sampled a stop token, or for max_new_tokens. A row that stopped keeps its stop
        token and is filled with `pad_id` from there on, which is never sampled, unless it is a stop token itself: row b
        has `(out[b] != pad_id).sum()` tokens.

        Args:
            prompt: ids, T ≥ 1; for prompts of different lengths call once for each, as padding is no text.
            max_new_tokens: at most so many are generated.
            temperature: of the softmax that is sampled from, below 1 for likelier tokens; 0 takes the likeliest.
            top_k: sample among the k likeliest tokens only; None for all.
            top_p: sample among the fewest tokens only that together have probability p or more, after temperature and
                top_k; None for all.
            stop: ids after which a row is complete.
            seed: of the draws, which leave torch's own random numbers as they are: the same seed, prompts and options
                give the same tokens. None draws anew each time.
            prefill: tokens of the prompt that are read at once.
            pad_id: what fills rows that have stopped; an id outside the vocabulary excludes nothing from sampling.
            cuda_graph: whether steps are recorded as a CUDA graph and replayed, once the state has the size that it
                keeps. "auto" does so on CUDA devices, for models of `constant_state` and 64 tokens or more. True does
                so for any number of tokens; on other devices its buffers are gone through without a graph. The tokens
                are the same.

        Raises:
            TypeError: prompt is no tensor of token ids, or an option no number.
            ValueError: a shape or an option that does not fit, padding in the prompt, more tokens than max_length, a
                model in training mode, or logits that are not numbers; cuda_graph=True for a model whose state grows.
        """
        steps = self.generate_steps(
            prompt,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop=stop,
            seed=seed,
            prefill=prefill,
            pad_id=pad_id,
            cuda_graph=cuda_graph,
        )
        return torch.stack(list(steps), 1)

    def generate_steps(
        self,
        prompt: Int[Tensor, "B T"],
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: int | Sequence[int] = (),
        seed: int | None = None,
        prefill: int = 2048,
        pad_id: int = 0,
        cuda_graph: bool | str = "auto",
    ) -> Iterator[Int[Tensor, "B"]]:
        """The columns of what `generate` returns, each (B,) as soon as it is sampled; arguments and errors as there.

        Arguments are checked by the call, before the first token is asked for.
        """
        given = stop.tolist() if hasattr(stop, "tolist") else stop  # of torch and NumPy
        stop = list(given) if isinstance(given, Iterable) else [given]
        checks.integers(max_new_tokens=max_new_tokens, prefill=prefill, top_k=top_k, seed=seed, pad_id=pad_id)
        for token in stop:
            checks.integers(stop=token)
        checks.numbers(temperature=temperature, top_p=top_p)
        for name, number in (("temperature", temperature), ("pad_id", pad_id), *(("stop", token) for token in stop)):
            if number is None:
                raise TypeError(f"{name}=None: expected a number; leave {name} out for the default")
        checks.at_least_one(max_new_tokens=max_new_tokens, prefill=prefill)
        max_new_tokens, prefill, pad_id = int(max_new_tokens), int(prefill), int(pad_id)  # of NumPy's, too
        stop = [int(token) for token in stop]
        self._check_prompt(prompt, pad_id, stop)
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature={temperature}: expected a number of at least 0; 0 takes the likeliest token")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k}: expected at least 1 token, or None for all")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p={top_p}: expected a probability above 0 and at most 1, or None for all tokens")
        if seed is not None and not 0 <= seed < 2**63:
            raise ValueError(f"seed={seed}: expected an integer from 0 to 2^63 − 1, or None for a new one each time")
        for token in stop:
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"stop={stop} holds {token}: expected ids, 0 ≤ id < vocab_size={self.vocab_size}")
        length = prompt.shape[1] + max_new_tokens - 1  # what the last token is predicted from
        if self.max_length is not None and length > self.max_length:
            raise ValueError(
                f"max_new_tokens={max_new_tokens} after a prompt of {prompt.shape[1]} tokens is longer than max_length="
                f"{self.max_length}: shorten one of them, or construct the model with max_length={length}"
            )
        device = place(self).device
        generator = torch.Generator(device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(int(seed))
        draw = partial(sample, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        # Weights that FSDP gathers in inference mode could not be trained on afterwards
        spread = any(hasattr(parameter, "device_mesh") for parameter in self.parameters())
        generate = (torch.no_grad() if spread else torch.inference_mode())(self._generate)
        least = self._least_to_replay(cuda_graph, device, spread)
        steps = generate(prompt.to(device), max_new_tokens, draw, stop, prefill, pad_id, least)
        return map(torch.clone, steps)  # outside inference mode, tensors as any others

    def _generate(
        self,
        prompt: Tensor,
        count: int,
        draw: Callable[[Tensor], Tensor],
        stop: list[int],
        prefill: int,
        pad_id: int,
        least: int | None,
    ) -> Iterator[Tensor]:
        excluded = 0 <= pad_id < self.vocab_size and pad_id not in stop and self.vocab_size > 1
        state, logits = self.init_state(prompt.shape[0]), prompt.new_empty(0)
        for piece in prompt.split(prefill, 1):
            logits, state = self._next(piece, state)  # (B, vocab_size)
        stops = torch.tensor(stop, dtype=prompt.dtype, device=prompt.device)
        stopped = torch.zeros_like(prompt[:, 0], dtype=torch.bool)
        replay = None
        for left in range(count - 1, -1, -1):
            if excluded:
                logits[:, pad_id] = -torch.inf
            tokens = draw(logits).to(prompt.dtype)  # (B,)
            yield tokens.masked_fill(stopped, pad_id)
            if stop:
                stopped = stopped | torch.isin(tokens, stops)
                if stopped.all():
                    return
            if not left:
                return
            if replay is not None:  # rows that stopped go on unseen
                logits = replay(tokens)
                continue
            before = None if least is None else state
            logits, state = self._next(tokens, state)
            if before is not None and least is not None and left > least:
                least, replay = self._replay(tokens, before, state, least)

    def _least_to_replay(self, cuda_graph: bool | str, device: torch.device, spread: bool) -> int | None:
        """How many tokens must be left at least for a CUDA graph of a step; None for never."""
        if cuda_graph not in ("auto", True, False):
            raise ValueError(f"cuda_graph={cuda_graph!r}: expected 'auto', True or False")
        reason = ""
        if not self.constant_state:
            reason = "the model's state grows with the context; give it a local scope, or position='exponential'"
        elif spread:
            reason = "weights that are spread over processes are gathered anew for each step"
        if cuda_graph is True and reason:
            raise ValueError(f"cuda_graph=True: {reason}, or leave cuda_graph out")
        if not cuda_graph or reason or (cuda_graph == "auto" and device.type != "cuda"):
            return None
        return 0 if cuda_graph is True else WORTH

    def _replay(
        self, tokens: Tensor, before: LanguageModelState, state: LanguageModelState, least: int
    ) -> tuple[int | None, Replay | None]:
        """Steps from here on by a replay, if they are alike; else whether to ask again."""
        found = changes(before, state)
        if all(isinstance(one, tuple) for one, _ in found):  # sizes only: the state is not full yet
            if found:
                return least, None
            reads = [*self.parameters(), *self.buffers(), *kept_of(self)]
            try:
                return least, Replay(self._next, tokens, state, reads)
            except RuntimeError as error:
                reason = f"a step cannot be recorded: {error}"
        else:
            reason = f"a step changes more of the state than tensors and counters: {found[0][0]} becomes {found[0][1]}"
        warnings.warn(f"generate goes on without a CUDA graph, as {reason}", stacklevel=2)
        return None, None

    @gathers
    def _next(self, tokens: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        """Logits (B, vocab_size) after tokens (B,) or (B, T), of the last of them only, and the state then."""
        features, state = self.step_features(tokens, state)
        return self.head(features if tokens.ndim == 1 else features[:, -1]), state

    def _check_prompt(self, prompt: Tensor, pad_id: int, stop: list[int]) -> None:
        if self.training:
            raise ValueError("the model is in training mode, in which dropout leaves parts out: call eval() first")
        checks.token_ids("prompt", prompt)
        if prompt.ndim != 2 or 0 in prompt.shape:
            raise ValueError(f"prompt has shape {tuple(prompt.shape)}: expected (B, T), B and T at least 1")
        if prompt.min() < 0 or prompt.max() >= self.vocab_size:
            raise ValueError(
                f"prompt holds token ids from {int(prompt.min())} to {int(prompt.max())}: expected 0 ≤ id < vocab_size="
                f"{self.vocab_size}; give the tokens of the tokenizer that the model was trained with"
            )
        if pad_id not in stop and (prompt == pad_id).any():
            raise ValueError(
                f"prompt holds the padding pad_id={pad_id}, which is no text: call once for each prompt, unpadded, or "
                "give another pad_id if this one is a token of the vocabulary"
            )


def sample(
    logits: Float[Tensor, "B vocab_size"],
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
) -> Int[Tensor, "B"]:
    """A token for each row; arguments are those of `GenerativeModel.generate`.

    Raises:
        ValueError: logits are NaN or infinite.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not logits.amax(-1).isfinite().all():
        raise ValueError("the model's logits are NaN or infinite: its weights have diverged, or are of another model")
    if temperature == 0:
        return logits.argmax(-1)
    count = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
    best, ids = logits.topk(count, -1)  # (B, k), falling
    # Relative to the greatest, so that a small temperature gives 0 and −∞, not ∞ − ∞
    scaled = (best - best[:, :1]) / max(temperature, torch.finfo(logits.dtype).tiny)
    probabilities = scaled.softmax(-1)
    if top_p is not None:
        before = probabilities.cumsum(-1) - probabilities  # of what is likelier
        probabilities = probabilities.masked_fill(before >= top_p, 0)
    drawn = torch.multinomial(probabilities, 1, generator=generator)  # (B, 1)
    return ids.gather(1, drawn)[:, 0]
