"""Options as a checkpoint keeps them: primitives, by their names on the command line."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def flattened(options: dict[str, Any], *, nothing: bool = False) -> dict[str, Any]:
    """Options by their names on the command line, such as model.options.dim, as primitives.

    Args:
        options: of a subcommand, nested.
        nothing: keep those that are None.
    """
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            prefix = "" if name in ("init_args", "dict_kwargs") else f"{name}."
            flat |= {f"{prefix}{rest}": part for rest, part in flattened(value, nothing=nothing).items()}
        elif nothing or value is not None:
            flat[name] = _primitive(value)
    return flat


def _primitive(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _primitive(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_primitive(part) for part in value]
    for kind in (bool, int, float, str):  # of jsonargparse's numbers, such as PositiveInt, the number
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def same(was: Any, now: Any) -> bool:
    """Whether an option is as it was; earlier versions kept some numbers as text."""
    return was == now or str(was) == str(now)


def group_options(group: dict[str, Any]) -> dict[str, Any]:
    """Options of a group of parameters and their number; of rates the greatest, which a schedule multiplies."""
    options = {name: value for name, value in group.items() if name not in ("params", "param_names", "lr")}
    return {"initial_lr": group["lr"]} | options | {"parameters": len(group["params"])}


def class_name(value: object) -> str:
    """Module and name of an object's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def class_at(path: str) -> Any:
    """The class of this module and name."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
