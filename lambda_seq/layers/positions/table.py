"""A free position embedding for each context offset: the table of the paper, and its resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.functional.problem import clip, origin
from lambda_seq.layers.positions.embedding import (
    PositionEmbedding,
    check_embedding,
    check_init,
    check_max_size,
    check_scope,
    plain,
)
from lambda_seq.layers.positions.resizing import resize_table
from lambda_seq.layers.weights import draw


class RelativePositionTable(PositionEmbedding, kind="table"):
    """A free embedding for each context offset m − n: R[u, k, m − n], the embedding of the paper.

    Local: `scope` offsets per dimension, centred on 0 (causal: ending at 0). Global: one for each offset that inputs up
    to `max_size` have, 2N − 1 per dimension (causal: N); a shorter input uses the middle of it.

    Args:
        intra: intra-depth U.
        dim_key: key depth K.
        scope: offsets per dimension, odd unless causal; None for global.
        max_size: largest input per dimension, for global scope.
        causal: offsets end at 0 (1D).
        init: "scaled", R ~ N(0, 1 / positions in scope), which gives the position lambda the variance of one value; or
            "paper", R ~ N(0, 1) (Bello 2021).

    Attributes:
        density: whether values stand for a density over positions, and are rescaled by `resize`; see `resize_table`.

    Raises:
        ValueError: an even scope, a global scope without a largest size, an unknown init.
    """

    summary = "free at each offset"
    takes = ("scope", "max_size", "causal", "init")
    sized = True
    density: bool = True

    def __init__(
        self,
        intra: int,
        dim_key: int,
        *,
        scope: Sequence[int] | None,
        max_size: Sequence[int] | None = None,
        causal: bool = False,
        init: str = "scaled",
    ) -> None:
        super().__init__()
        check_embedding(intra, dim_key, causal)
        check_init(init)
        if scope is not None:
            check_scope(scope, causal)
            self.taps = tuple(scope)
            self.max_size: tuple[int, ...] | None = None
            positions = math.prod(self.taps)
        else:
            if max_size is None:
                raise ValueError(
                    "scope=None is global and its table needs the largest input: give max_length=N "
                    "(2D: max_size=(H, W))"
                )
            check_max_size(max_size)
            self.taps = tuple(length if causal else 2 * length - 1 for length in max_size)
            self.max_size = tuple(max_size)
            positions = math.prod(max_size)
        self.causal = causal
        self.reach = self.taps[-1] - 1 if causal else self.taps[-1] // 2
        self.init = init
        self.std = 1.0 if init == "paper" else positions**-0.5
        self.weight = nn.Parameter(torch.empty(intra, dim_key, *self.taps))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        draw(self.weight, self.std)

    def forward(self, size: Sequence[int]) -> Float[Tensor, "U K *R"]:
        """The embedding for inputs of this size per dimension.

        Raises:
            ValueError: the input is larger than a global table.
        """
        if self.max_size is not None:
            for length, most in zip(size, self.max_size, strict=True):
                if length > most:
                    raise ValueError(
                        f"x has size {plain(size)} but the global position table covers {plain(self.max_size)}: "
                        f"construct the layer with {'max_length' if len(size) == 1 else 'max_size'}={plain(size)}, "
                        "call resize, or use a local scope"
                    )
        return clip(self.weight, origin(self.taps, self.causal), size)[0]

    def resize(self, max_size: Sequence[int]) -> None:
        """Make a global table cover inputs of this size, its offsets rescaled by `resize_table`; a local one stays.

        For the same content at another resolution, such as pictures. The parameter is a new one: construct the
        optimizer afterwards.

        Raises:
            ValueError: a size below 1, or of another number of dimensions.
        """
        if self.max_size is None:
            return
        new = tuple(max_size)
        if len(new) != len(self.max_size):
            raise ValueError(f"max_size={plain(new)}: expected {len(self.max_size)} sizes, one per dimension")
        check_max_size(new)
        table = resize_table(self.weight.detach(), self.max_size, new, causal=self.causal, density=self.density)
        self.weight = nn.Parameter(table, requires_grad=self.weight.requires_grad)
        self.std = 1.0 if self.init == "paper" else math.prod(new) ** -0.5
        self.taps, self.max_size = tuple(table.shape[2:]), new
        self.reach = self.taps[-1] - 1 if self.causal else self.taps[-1] // 2

    def extra_repr(self) -> str:
        """Shape and kind, for printing."""
        intra, dim_key, *_ = self.weight.shape
        kind = "global" if self.max_size is not None else "local"
        return f"intra={intra}, dim_key={dim_key}, offsets={self.taps}, {kind}{', causal' if self.causal else ''}"


def resize_positions(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict whose global position tables have the sizes of the model's, by `resize_table`; the rest as it is.

    `model.load_state_dict(resize_positions(weights, model))` loads a network trained on inputs of one size into one
    constructed for another. Tables of local scope, whose size is no input's, and whatever else differs are left to
    `load_state_dict`, which names them.

    Args:
        state_dict: of the same network for another image_size or max_length; left as it is.
        model: what it shall be loaded into.
    """
    resized = dict(state_dict)
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, RelativePositionTable) or module.max_size is None:
            continue
        key = f"{name}.weight" if name else "weight"
        found = resized.get(key)
        if found is not None and found.ndim == module.weight.ndim and found.shape[2:] != module.weight.shape[2:]:
            old = [(offsets if module.causal else (offsets + 1) // 2) for offsets in found.shape[2:]]
            resized[key] = resize_table(found, old, module.max_size, causal=module.causal, density=module.density)
    return resized
