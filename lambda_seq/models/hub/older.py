"""Options of networks that were saved when some of them had other names, by the names of today."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lambda_seq.layers.options import RENAMED
from lambda_seq.models.registry import accepted_options


def current_options(network: str, options: Mapping[str, Any], weights: Collection[str]) -> dict[str, Any]:
    """Options of a saved network by the names of today; those of today's names stay as they are.

    Once `norm` of a network of sequences was the norm of its blocks, which is `block_norm` now, and `lambda_norm` that
    of its lambda layers, which is `norm`. Where options do not say which of the two `norm` is, the weights do.

    Args:
        network: its name, as `create_model` takes it; one that has an option of such a name itself keeps it.
        options: as they were saved.
        weights: names of the network's weights.

    Raises:
        ValueError: no network has this name.
    """
    accepted = accepted_options(network)
    renamed = {old: new for old, new in RENAMED.items() if old not in accepted and new in accepted}
    found = {renamed.get(name, name): value for name, value in options.items()}
    if "block_norm" not in accepted:
        return found
    older = any(name in options for name in renamed)
    given = options.get("norm")
    if not older and given is not None and "block_norm" not in options:
        older = _kind("norm_query", weights) != given
    if not older:
        return found
    found.pop("norm", None)
    if "lambda_norm" in options:
        found["norm"] = options["lambda_norm"]
    return {**found, "block_norm": _kind("norm1", weights) if given is None else given}


def _kind(norm: str, weights: Collection[str]) -> str:
    """Which norm the weights of modules of this name are of."""
    leaves = {name.rpartition(".")[2] for name in weights if f".{norm}." in name}
    kinds = {"running_mean": "batch", "bias": "layer", "weight": "rms"}
    return next((kind for leaf, kind in kinds.items() if leaf in leaves), "none")
