"""A step of a stream that is done over and over: over buffers that stay where they are, as one CUDA graph on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from lambda_seq.functional.states import taken_apart

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
WARM_UP = 2  # steps before one is recorded: libraries make their workspaces, kernels are loaded


class Replay:
    """Steps (tokens, state) -> (logits, state after) that are all alike, one after another.

    Tokens, the tensors of the state and logits have buffers. On a CUDA device the step is recorded once, as a graph
    that is launched as a whole for each token; elsewhere it goes through the same buffers as it is. Whether steps are
    alike, `changes` says; counters in the state stand still here, as nothing that is computed may depend on them.

    Args:
        step: does not wait for the device.
        tokens: of a shape and dtype that all have.
        state: before the first step; stays as it is.
        reads: tensors that the step reads beside, such as weights: a graph reads their memory, so they are held here.

    Raises:
        RuntimeError: the step cannot be recorded.
    """

    def __init__(self, step: Step, tokens: Tensor, state: Any, reads: Sequence[Tensor] = ()) -> None:
        leaves, self.put_together = taken_apart(state)
        self.step, self.tokens, self.leaves = step, tokens.clone(), [leaf.clone() for leaf in leaves]
        self.reads = [tensor.detach() for tensor in reads]  # hold their memory, also if a module is moved meanwhile
        self.logits: Tensor | None = None
        self.graph = self._recorded() if tokens.device.type == "cuda" else None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits after the next tokens, in memory that the next step writes again."""
        self.tokens.copy_(tokens)
        if self.graph is None:
            self._run()
        else:
            self.graph.replay()
        assert self.logits is not None
        return self.logits

    @property
    def state(self) -> Any:
        """The state after the last step, with the counters of the beginning."""
        return self.put_together(self.leaves)

    def _run(self) -> None:
        logits, after = self.step(self.tokens, self.state)
        if self.logits is None:
            self.logits = torch.empty_like(logits)
        self.logits.copy_(logits)
        for buffer, leaf in zip(self.leaves, taken_apart(after)[0], strict=True):
            buffer.copy_(leaf)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)  # autocast frees what it keeps when it ends, and a graph would read it
        try:
            with torch.cuda.device(self.tokens.device):
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(WARM_UP):
                        logits, _ = self.step(self.tokens, self.state)
                torch.cuda.current_stream().wait_stream(side)
                self.logits = torch.empty_like(logits)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on
                    self._run()
        finally:
            torch.set_autocast_cache_enabled(cached)
        return graph


def changes(before: Any, after: Any) -> list[tuple[Any, Any]]:
    """What a step has changed of a state but for its numbers on the device and its counters: [] once steps are alike.

    Counters are integers that a step makes greater by one. A tensor counts by its shape and dtype, a tuple.
    """
    return [
        (one, other)
        for one, other in zip_longest(_form(before), _form(after))
        if one != other and not (isinstance(one, int) and other == one + 1)
    ]


def _form(state: Any) -> Iterator[Any]:
    """Of each tensor its shape and dtype, and all else that is no tensor."""
    if isinstance(state, Tensor):
        yield tuple(state.shape), state.dtype
    elif is_dataclass(state):
        for field in fields(state):
            yield from _form(getattr(state, field.name))
    elif isinstance(state, (tuple, list)):
        yield f"{len(state)} parts"
        for part in state:
            yield from _form(part)
    else:
        yield state
