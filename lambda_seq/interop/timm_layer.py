"""timm's lambda layer (R. Wightman) to ours and back, with equal outputs; the table is in `interop.timm`.

Limits: there is no way for `LambdaLayer1d`, masks, intra-depth, other norms of keys or queries, other position
embeddings, a lambda without its content part, or dim_out other than dim, with which timm's layer does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lambda_seq.interop.weights import NORM, LayerWeights, check_dims, check_names, copy_constants, take_norm
from lambda_seq.layers import LambdaLayer2d

PACKAGE = "timm"
_COMMON = ("qkv.weight", *(f"norm_{of}.{entry}" for of in "qv" for entry in NORM))
_LOCAL, _GLOBAL = ("conv_lambda.weight", "conv_lambda.bias"), ("pos_emb",)


def convert_layer(layer: nn.Module) -> LambdaLayer2d:
    """Our layer with the weights of a timm `LambdaLayer`, and its outputs, in training mode too.

    Biases of its projections (qkv_bias) have no effect beyond the running means of the norms, and go into those.

    Args:
        layer: timm's; of local scope (r) it becomes a `BiasedLambdaLayer2d`, of global scope (feat_size) a
            `LambdaLayer2d`, which also takes smaller maps.

    Raises:
        ValueError: the layer has a stride, which ours has not, or weights that it does not know.
    """
    pool = getattr(layer, "pool", None)
    if pool is not None and not isinstance(pool, nn.Identity):
        raise ValueError(
            f"layer has stride=2, {pool}: ours has none; set layer.pool = nn.Identity() and pool behind it"
        )
    return read_layer(layer.state_dict(), "layer").layer(layer)


def convert_layer_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of timm's layer as that of ours.

    Raises:
        ValueError: names or shapes that are none of this layer, naming them.
    """
    return read_layer(weights, "weights").state_dict()


def export_layer_state_dict(layer: LambdaLayer2d) -> dict[str, Tensor]:
    """The state dict of our layer as that of timm's.

    Raises:
        TypeError: no LambdaLayer2d.
        ValueError: an option of the layer that timm's has not.
    """
    ours = LayerWeights.of(layer, PACKAGE)
    rows, columns = ours.embedding.shape[2:]
    if layer.dim_intra > 1:
        raise ValueError(f"layer has dim_intra={layer.dim_intra}: {PACKAGE} has dim_intra=1 only")
    if layer.dim_out != layer.dim:
        raise ValueError(
            f"layer has dim={layer.dim}, dim_out={layer.dim_out}: {PACKAGE}'s layer runs with equal ones only"
        )
    if not ours.is_global and rows != columns:
        raise ValueError(f"layer has scope=({rows}, {columns}): {PACKAGE} has square scopes only")
    weights = {"qkv.weight": torch.cat([ours.query, ours.key, ours.value])[:, :, None, None]}
    for name, norm in (("norm_q", ours.norm_query), ("norm_v", ours.norm_value)):
        weights |= {f"{name}.{entry}": tensor for entry, tensor in norm.items()}
    if ours.is_global:
        weights["pos_emb"] = ours.embedding[0].permute(1, 2, 0)  # (2H − 1, 2W − 1, K)
    else:
        weights["conv_lambda.weight"] = ours.embedding[0][:, None, :, :, None]  # (K, 1, R, R, 1)
        weights["conv_lambda.bias"] = ours.query.new_zeros(layer.dim_key) if ours.bias is None else ours.bias
    return {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}


def export_layer(layer: LambdaLayer2d) -> nn.Module:
    """A timm `LambdaLayer` with the weights and outputs of ours; a global one takes maps of `max_size` only.

    Raises:
        ImportError: timm is not installed, or does not import.
        TypeError: no LambdaLayer2d.
        ValueError: an option of the layer that timm's has not.
    """
    weights = export_layer_state_dict(layer)
    try:
        from timm.layers.lambda_layer import LambdaLayer
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises the second
        raise ImportError(
            f"timm does not import, and a layer of its own is made by it ({str(error).splitlines()[0]}): pip install "
            "timm torchvision, of versions that fit torch's, or take export_layer_state_dict(layer)"
        ) from error
    if "pos_emb" in weights:
        size = [(count + 1) // 2 for count in weights["pos_emb"].shape[:2]]
        scope: dict[str, Any] = {"r": None, "feat_size": tuple(size)}
    else:
        scope = {"r": weights["conv_lambda.weight"].shape[2]}
    theirs: nn.Module = LambdaLayer(layer.dim, num_heads=layer.heads, dim_head=layer.dim_key, **scope)
    for name, norm in (("norm_q", layer.norm_query), ("norm_v", layer.norm_value)):
        copy_constants(norm, getattr(theirs, name))
    theirs.load_state_dict(weights)
    place = layer.project.weight
    return theirs.to(place.device, place.dtype).train(layer.training)


def read_layer(weights: Mapping[str, Tensor], where: str) -> LayerWeights:
    """The weights of timm's layer in our layout; `where` begins errors."""
    is_global, has_bias = "pos_emb" in weights, "qkv.bias" in weights
    expected = (*_COMMON, *(_GLOBAL if is_global else _LOCAL), *(["qkv.bias"] if has_bias else []))
    check_names(weights, expected, f"{where} has weights of no LambdaLayer of {PACKAGE}")
    check_dims(weights, qkv__weight=4, norm_q__weight=1, norm_v__weight=1, pos_emb=3, conv_lambda__weight=5)
    norm_query, norm_value = take_norm(weights, "norm_q"), take_norm(weights, "norm_v")
    queries, values = len(norm_query["weight"]), len(norm_value["weight"])
    parts = (queries, len(weights["qkv.weight"]) - queries - values, values)
    if min(parts) < 1:
        raise ValueError(
            f"{where}: qkv.weight has shape {tuple(weights['qkv.weight'].shape)}: expected {queries} + {values} rows, "
            "as the norms have, and those of the keys"
        )
    query, key, value = weights["qkv.weight"].flatten(1).split(parts)
    if has_bias:  # a norm takes its mean off again, and a softmax a constant of the keys
        query_bias, _, value_bias = weights["qkv.bias"].split(parts)
        norm_query["running_mean"] = norm_query["running_mean"] - query_bias
        norm_value["running_mean"] = norm_value["running_mean"] - value_bias
    if is_global:
        embedding, bias = weights["pos_emb"].permute(2, 0, 1).unsqueeze(0), None
    else:
        embedding, bias = weights["conv_lambda.weight"].squeeze(-1).transpose(0, 1), weights["conv_lambda.bias"]
    return LayerWeights(query, key, value, norm_query, norm_value, embedding, bias, is_global)
