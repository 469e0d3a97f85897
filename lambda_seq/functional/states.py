"""What streams carry as trees of tensors: for `torch.utils._pytree`, and for files read with `weights_only=True`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self, TypeVar

import torch

# Private to torch. Of what is public, `torch.export.register_dataclass` would make children of numbers, which
# `tree_map(lambda x: x.to(device), state)` cannot take.
from torch.utils import _pytree as pytree

Class = TypeVar("Class", bound=type)


def taken_apart(state: Any) -> tuple[list[torch.Tensor], Callable[[list[torch.Tensor]], Any]]:
    """The tensors of a state, and what makes a state of others in their place, with the numbers of this one."""
    leaves, structure = pytree.tree_flatten(state)
    return leaves, lambda tensors: pytree.tree_unflatten(tensors, structure)


def names_of(state: Any) -> list[str]:
    """What the tensors of a state are called, in the order of `taken_apart`: "blocks.0.content.sums"."""
    paths, _ = pytree.tree_flatten_with_path(state)
    return [".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in path) for path, _ in paths]


class State:
    """What a stream carries from one piece to the next; made a `tree` and never changed in place."""

    def detach(self) -> Self:
        """The same numbers, through which no gradient reaches the pieces before: for training piece by piece."""
        detached: Self = pytree.tree_map(torch.Tensor.detach, self)
        return detached


def tree(cls: Class) -> Class:
    """Make a dataclass a tree: its children are tensors and other trees; numbers, and None, belong to its structure.

    So `tree_map(lambda x: x.to(device), state)` does what it says. `torch.load(weights_only=True)` reads it once
    `lambda_seq.functional` is imported.
    """
    torch.serialization.add_safe_globals([cls])
    pytree.register_pytree_node(
        cls,
        _flatten,
        _unflatten(cls),
        serialized_type_name=f"lambda_seq.{cls.__name__}",
        to_dumpable_context=list,
        from_dumpable_context=lambda context: tuple(tuple(part) for part in context),
        flatten_with_keys_fn=_flatten_with_keys,
    )
    return cls


def _flatten(given: Any) -> tuple[list[Any], tuple[tuple[str, Any], ...]]:
    """Children, and of each field its name and either what it holds or, for a child, "child"."""
    children, structure = [], []
    for field in fields(given):
        part = getattr(given, field.name)
        is_number = part is None or isinstance(part, (int, float))
        structure.append((field.name, part if is_number else "child"))
        if not is_number:
            children.append(part)
    return children, tuple(structure)


def _unflatten(cls: type) -> Callable[[Any, Any], Any]:
    def unflatten(children: Any, structure: Any) -> Any:
        rest = iter(children)
        return cls(**{name: next(rest) if part == "child" else part for name, part in structure})

    return unflatten


def _flatten_with_keys(given: Any) -> tuple[list[tuple[Any, Any]], tuple[tuple[str, Any], ...]]:
    children, structure = _flatten(given)
    names = (name for name, part in structure if part == "child")
    return [(pytree.GetAttrKey(name), child) for name, child in zip(names, children, strict=True)], structure
