"""The layer of pip's lambda-networks (P. Wang), to ours and back, with equal outputs.

| lambda-networks | ours |
|---|---|
| to_q, to_k, to_v: 1×1 convolutions | project: one product, queries, values, keys |
| norm_q, norm_v: batch norms on queries and values | norm_query, norm_value |
| pos_conv (r given): Conv3d (K, U, 1, r, r) **with a bias** (K) | position (U, K, r, r), position_bias |
| rel_pos_emb (n given): (2n − 1, 2n − 1, K, U) by m − n | position (U, K, 2n − 1, 2n − 1), global |

Keys are normalised over the positions in both. Limits: there is no way for `LambdaLayer1d`, masks, other norms of keys
or queries, other position embeddings, or a lambda without its content part; local scope there is square, and global
scope takes n × n pictures only (ours, smaller ones too). A `pos_emb` for each pair of positions, as the package's
TensorFlow layer has it, is not relative and has no equal here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lambda_seq.interop.weights import NORM, LayerWeights, check_dims, check_names, copy_constants, take_norm
from lambda_seq.layers import LambdaLayer2d

PACKAGE = "lambda-networks"
_COMMON = ("to_q.weight", "to_k.weight", "to_v.weight", *(f"norm_{of}.{entry}" for of in "qv" for entry in NORM))
_LOCAL, _GLOBAL = ("pos_conv.weight", "pos_conv.bias"), ("rel_pos_emb",)


def convert_layer(layer: nn.Module) -> LambdaLayer2d:
    """Our layer with the weights of a `lambda_networks.LambdaLayer`, and its outputs, in training mode too.

    Args:
        layer: theirs; of local scope (r) it becomes a `BiasedLambdaLayer2d`, of global scope (n) a `LambdaLayer2d`.

    Raises:
        ValueError: weights that this layer does not have, naming them.
    """
    return _parse(layer.state_dict()).layer(layer)


def convert_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of one of their layers as that of ours.

    Raises:
        ValueError: names or shapes that are none of this layer, naming them.
    """
    return _parse(weights).state_dict()


def export_state_dict(layer: LambdaLayer2d) -> dict[str, Tensor]:
    """The state dict of our layer as that of theirs.

    Raises:
        TypeError: no LambdaLayer2d.
        ValueError: an option of the layer that theirs has not.
    """
    ours = LayerWeights.of(layer, PACKAGE)
    rows, columns = ours.embedding.shape[2:]
    if rows != columns:
        raise ValueError(f"layer has a position table of {rows} × {columns} offsets: {PACKAGE} has square ones only")
    weights = {"to_q.weight": ours.query, "to_k.weight": ours.key, "to_v.weight": ours.value}
    weights = {name: weight[:, :, None, None] for name, weight in weights.items()}
    for name, norm in (("norm_q", ours.norm_query), ("norm_v", ours.norm_value)):
        weights |= {f"{name}.{entry}": tensor for entry, tensor in norm.items()}
    if ours.is_global:
        weights["rel_pos_emb"] = ours.embedding.permute(2, 3, 1, 0)  # (R, R, K, U)
    else:
        weights["pos_conv.weight"] = ours.embedding.transpose(0, 1).unsqueeze(2)  # (K, U, 1, R, R)
        weights["pos_conv.bias"] = ours.query.new_zeros(layer.dim_key) if ours.bias is None else ours.bias
    return {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}


def export_layer(layer: LambdaLayer2d) -> nn.Module:
    """A `lambda_networks.LambdaLayer` with the weights and outputs of ours.

    Raises:
        ImportError: the package is not installed.
        TypeError: no LambdaLayer2d.
        ValueError: an option of the layer that theirs has not.
    """
    weights = export_state_dict(layer)
    try:
        from lambda_networks import LambdaLayer
    except ImportError as error:
        raise ImportError(
            f"{PACKAGE} is not installed, and a layer of its own is made by it ({error}): pip install {PACKAGE}, or "
            "take export_state_dict(layer)"
        ) from error
    scope: dict[str, Any] = {"n": (weights["rel_pos_emb"].shape[0] + 1) // 2} if "rel_pos_emb" in weights else {}
    if not scope:
        scope = {"r": weights["pos_conv.weight"].shape[-1]}
    theirs: nn.Module = LambdaLayer(
        layer.dim, dim_k=layer.dim_key, heads=layer.heads, dim_out=layer.dim_out, dim_u=layer.dim_intra, **scope
    )
    for name, norm in (("norm_q", layer.norm_query), ("norm_v", layer.norm_value)):
        copy_constants(norm, getattr(theirs, name))
    theirs.load_state_dict(weights)
    place = layer.project.weight
    return theirs.to(place.device, place.dtype).train(layer.training)


def _parse(weights: Mapping[str, Tensor]) -> LayerWeights:
    if "pos_emb" in weights:
        raise ValueError(
            f"pos_emb is an embedding for each pair of positions, shape {tuple(weights['pos_emb'].shape)}: expected "
            "rel_pos_emb or pos_conv, which are relative; nothing here computes the same"
        )
    is_global = "rel_pos_emb" in weights
    check_names(weights, (*_COMMON, *(_GLOBAL if is_global else _LOCAL)), f"weights are of no layer of {PACKAGE}")
    check_dims(weights, to_q__weight=4, to_k__weight=4, to_v__weight=4, rel_pos_emb=4, pos_conv__weight=5)
    if is_global:
        embedding, bias = weights["rel_pos_emb"].permute(3, 2, 0, 1), None
    else:
        embedding, bias = weights["pos_conv.weight"].squeeze(2).transpose(0, 1), weights["pos_conv.bias"]
    return LayerWeights(
        query=weights["to_q.weight"].flatten(1),
        key=weights["to_k.weight"].flatten(1),
        value=weights["to_v.weight"].flatten(1),
        norm_query=take_norm(weights, "norm_q"),
        norm_value=take_norm(weights, "norm_v"),
        embedding=embedding,
        bias=bias,
        is_global=is_global,
    )
