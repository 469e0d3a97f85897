"""Position embeddings that cost something to make, and that streams keep until their weights change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Self
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from lambda_seq import functional as LF
from lambda_seq.functional.operators import transformed
from lambda_seq.layers.positions.embedding import PositionEmbedding

Streamed = Tensor | LF.Exponentials


@dataclass(frozen=True)
class _Entry:
    """What was made, for how many positions, and of which tensors."""

    made: Streamed
    length: int
    tensors: tuple[Tensor, ...]
    memory: tuple[Tensor, ...]  # the same as they were: while they live, no other tensor has their addresses
    versions: tuple[int, ...]

    def holds(self, tensors: Sequence[Tensor], length: int) -> bool:
        """Whether these are the tensors, unchanged."""
        return (
            length <= self.length
            and len(tensors) == len(self.tensors)
            and all(
                tensor is same
                # Private to torch, which has no public count of changes in place
                and tensor._version == version
                and tensor.dtype == before.dtype
                and tensor.device == before.device
                and tensor.is_set_to(before)
                for tensor, same, before, version in zip(tensors, self.tensors, self.memory, self.versions, strict=True)
            )
        )


# Outside of the modules, which are copied, pickled and saved without it
_KEPT: WeakKeyDictionary[nn.Module, _Entry] = WeakKeyDictionary()


def _forget(*_: object) -> None:
    """Forget everything that is kept."""
    if not torch.compiler.is_compiling():  # compiled optimizers count their changes
        _KEPT.clear()


register_optimizer_step_post_hook(_forget)  # fused ones do not


class KeptPosition(PositionEmbedding):
    """An embedding that `streaming` makes once for many steps, where no gradient is wanted of it.

    It is made anew when a parameter or buffer has been changed in place (autograd counts that), replaced or moved, as
    by `load_state_dict`, `to` or `resize`, and after a step of any `torch.optim.Optimizer`, `train()` or `eval()`: call
    one of these after changes that nobody counts, through `.data` or by other processes. Copies, pickles and state
    dicts do not contain it. In distributed runs, where weights may be gathered anew uncounted, nothing is kept.
    """

    def weights_of_stream(self) -> Iterable[Tensor]:
        """The parameters and buffers that `made` depends on."""
        raise NotImplementedError(f"{type(self).__name__} has no weights_of_stream: define it to return tensors")

    def made(self, length: int) -> Streamed:
        """What `streaming` gives, for `length` positions."""
        raise NotImplementedError(f"{type(self).__name__} has no made(length): define it to return an embedding")

    def covered(self, length: int) -> int:
        """For how many positions to make it, so that it lasts, where `length` are asked for."""
        return length

    def streaming(self, length: int) -> Float[Tensor, "U K R"] | LF.Exponentials:
        """What `functional.stream` needs after `length` positions, 1D; made anew only if the weights have changed."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.made(length)
        tensors = tuple(self.weights_of_stream())
        wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if wanted or self.training or transformed() or _distributed():
            return self.made(length)
        entry = _KEPT.get(self)
        if entry is not None and entry.holds(tensors, length):
            return entry.made
        if not all(map(_counted, tensors)):
            return self.made(length)
        with torch.inference_mode(False), torch.no_grad():  # of use outside of inference mode, too
            most = self.covered(length)
            made = self.made(most)
            memory = tuple(tensor.detach() for tensor in tensors)
        if all(type(part) is Tensor for part in _tensors(made)):  # no fake ones, or other modes' own
            _KEPT[self] = _Entry(made, most, tensors, memory, tuple(tensor._version for tensor in tensors))
        return made

    def train(self, mode: bool = True) -> Self:
        """As torch's; what streams keep is forgotten."""
        _KEPT.pop(self, None)
        return super().train(mode)


def kept_of(network: nn.Module) -> list[Tensor]:
    """The tensors that are kept of a network's embeddings, for programs that read their memory later."""
    entries = (_KEPT.get(module) for module in network.modules())
    parts = (_tensors(entry.made) for entry in entries if entry is not None)
    return [tensor for some in parts for tensor in some]


def _tensors(made: object) -> list[Tensor]:
    """Those that an embedding is made of."""
    if isinstance(made, Tensor):
        return [made]
    return [tensor for part in vars(made).values() for tensor in _tensors(part)] if is_dataclass(made) else []


def _counted(tensor: Tensor) -> bool:
    """Whether changes of this tensor are counted, and its memory known."""
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_inference() and tensor.device.type != "meta"


def _distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
