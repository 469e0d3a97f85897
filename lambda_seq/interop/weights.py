"""The weights of one two-dimensional lambda layer, between the ways in which implementations lay them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.layers import LambdaLayer2d, MaskedBatchNorm, RelativePositionTable
from lambda_seq.layers.biased import BiasedLambdaLayer2d

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
NAMED = 5  # weights that an error names


@dataclass
class LayerWeights:
    """What every implementation has, in our layout: heads, intra-depth and depth of each projection in this order.

    Attributes:
        query, key, value: projections; their first dimensions are H·K, U·K and U·V.
        norm_query, norm_value: state dicts of the batch norms.
        embedding: by context offset, centred.
        bias: of the position lambdas; None where there is none.
        is_global: whether the table is that of a global scope, 2H − 1 by 2W − 1.
    """

    query: Float[Tensor, "HK dim"]
    key: Float[Tensor, "UK dim"]
    value: Float[Tensor, "UV dim"]
    norm_query: dict[str, Tensor]
    norm_value: dict[str, Tensor]
    embedding: Float[Tensor, "U K RY RX"]
    bias: Float[Tensor, "K"] | None
    is_global: bool

    def __post_init__(self) -> None:
        """Raise ValueError for shapes that do not belong together."""
        intra, dim_key, *offsets = self.embedding.shape
        fits = {
            "queries": self.query.shape[0] % dim_key == 0,
            "keys": self.key.shape[0] == intra * dim_key,
            "values": self.value.shape[0] % intra == 0,
            "norms of queries": all(
                len(self.query) == len(tensor) for tensor in self.norm_query.values() if tensor.ndim
            ),
            "norms of values": all(
                len(self.value) == len(tensor) for tensor in self.norm_value.values() if tensor.ndim
            ),
            "position table": all(count % 2 for count in offsets),
            "position bias": self.bias is None or self.bias.shape == (dim_key,),
        }
        wrong = [name for name, fit in fits.items() if not fit]
        if wrong:
            raise ValueError(
                f"shapes of the {', '.join(wrong)} do not fit: queries {tuple(self.query.shape)}, keys "
                f"{tuple(self.key.shape)}, values {tuple(self.value.shape)}, position table (U, K, *offsets) "
                f"{tuple(self.embedding.shape)}: expected H·K, U·K and U·V rows, norms of as many, and odd offsets"
            )

    def state_dict(self) -> dict[str, Tensor]:
        """The weights of a `LambdaLayer2d`, or of a `BiasedLambdaLayer2d` where there is a bias, by name."""
        weights = {"project.weight": torch.cat([self.query, self.value, self.key])}
        for name, norm in (("norm_query", self.norm_query), ("norm_value", self.norm_value)):
            weights |= {f"{name}.{entry}": tensor for entry, tensor in norm.items()}
        weights["position.weight"] = self.embedding.contiguous()
        if self.bias is not None:
            weights["position_bias"] = self.bias
        return weights

    def layer(self, like: nn.Module) -> LambdaLayer2d:
        """A layer of these weights; dtype, device, mode and the constants of the norms are those of another one."""
        intra, dim_key, rows, columns = self.embedding.shape
        heads = self.query.shape[0] // dim_key
        kind = LambdaLayer2d if self.bias is None else BiasedLambdaLayer2d
        layer = kind(
            self.query.shape[1],
            self.value.shape[0] // intra * heads,
            heads=heads,
            dim_key=dim_key,
            dim_intra=intra,
            scope=None if self.is_global else (rows, columns),
            max_size=((rows + 1) // 2, (columns + 1) // 2) if self.is_global else None,
        )
        for ours, theirs in (("norm_query", "norm_q"), ("norm_value", "norm_v")):
            copy_constants(getattr(like, theirs), getattr(layer, ours))
        layer.load_state_dict(self.state_dict())
        return layer.to(self.query.device, self.query.dtype).train(like.training)

    @classmethod
    def of(cls, layer: LambdaLayer2d, package: str) -> LayerWeights:
        """The weights of our layer, if it computes what the published PyTorch layers do.

        Raises:
            TypeError: no LambdaLayer2d.
            ValueError: an option that `package` has not.
        """
        if not isinstance(layer, LambdaLayer2d):
            raise TypeError(f"layer is {type(layer).__name__}: expected a LambdaLayer2d")
        for name, wanted in (("content", True), ("key_norm", "softmax"), ("query_norm", "none")):
            if getattr(layer, name) != wanted:
                raise ValueError(f"layer has {name}={getattr(layer, name)!r}: {package} has {name}={wanted!r} only")
        norms = [getattr(layer, name) for name in ("norm_query", "norm_value")]
        if not all(isinstance(norm, MaskedBatchNorm) for norm in norms):
            raise ValueError(f"layer has {type(norms[0]).__name__}: {package} has norm='batch' only")
        if not isinstance(layer.position, RelativePositionTable):
            found = "no position lambda" if layer.position is None else f"a {type(layer.position).__name__}"
            raise ValueError(f"layer has {found}: {package} has position='table' only")
        query, value, key = layer.project.weight.detach().split(layer.parts)
        bias = layer.position_bias.detach() if isinstance(layer, BiasedLambdaLayer2d) else None
        return cls(
            query=query,
            key=key,
            value=value,
            norm_query=norms[0].state_dict(),
            norm_value=norms[1].state_dict(),
            embedding=layer.position.weight.detach(),
            bias=bias,
            is_global=layer.position.max_size is not None,
        )


def copy_constants(norm: nn.Module, other: nn.Module) -> None:
    """Give a batch norm the eps and momentum of another one."""
    for name in ("eps", "momentum"):
        setattr(other, name, getattr(norm, name))


def take_norm(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The state dict of the batch norm of this name."""
    return {entry: weights[f"{name}.{entry}"] for entry in NORM}


def check_names(weights: Iterable[str], expected: Iterable[str], what: str) -> None:
    """Raise ValueError unless the weights have exactly the expected names."""
    found, wanted = set(weights), set(expected)
    problems = [f"{name} is missing" for name in sorted(wanted - found)]
    problems += [f"{name} is unknown" for name in sorted(found - wanted)]
    if problems:
        raise ValueError(f"{what}: {listed(problems)}")


def check_dims(weights: Mapping[str, Tensor], **dims: int) -> None:
    """Raise ValueError unless each weight there is has as many dimensions; "__" in a name stands for a dot."""
    for name, count in dims.items():
        tensor = weights.get(name.replace("__", "."))
        if tensor is not None and tensor.ndim != count:
            raise ValueError(f"{name.replace('__', '.')} has shape {tuple(tensor.shape)}: expected {count} dimensions")


def listed(problems: list[str]) -> str:
    """The first of them in a line, and how many more there are."""
    more = f", and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return "; ".join(problems[:NAMED]) + more
