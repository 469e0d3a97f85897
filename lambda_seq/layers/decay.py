"""Groups of parameters for optimizers: which decay, and which are of position embeddings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from lambda_seq.layers import checks
from lambda_seq.layers.lambda_layer import LambdaLayer
from lambda_seq.layers.norm import BatchNorm
from lambda_seq.layers.positions.embedding import PositionEmbedding

NORMS = nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d | BatchNorm
POSITIONS = "positions"  # name of the group of position embeddings


def param_groups(
    model: nn.Module, weight_decay: float | None = None, *, positions: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The parameters of a model in two groups for an optimizer: those that decay, and all others, which do not.

        optimizer = torch.optim.AdamW(param_groups(model), lr=1e-3, weight_decay=0.05)

    With `positions`, its position embeddings are a third group, with a learning rate or weight decay of their own:

        groups = param_groups(model, positions={"lr": 1e-4})

    Matrices, convolutions and embeddings of tokens decay. Biases, norms and all else of fewer than two dimensions do
    not, nor does what a module declares by its attribute `no_weight_decay`: True for all of its parameters and those
    of the modules in it, or names of such parameters or modules. Position embeddings of all kinds are declared so, and
    what is given to a lambda layer as `position`. Own modules declare theirs in the same way, as an attribute of the
    class or of the module; it goes with copies, casts, compiled and sharded modules. A parameter that several modules
    share does not decay as soon as one of them declares it.

    Args:
        model: any module; parameters without requires_grad are left out.
        weight_decay: of the first group; None for the optimizer's own.
        positions: options of a group of position embeddings, such as "lr" and "weight_decay", which is 0 unless given;
            its "name" is "positions". None to leave them in the second group.

    Raises:
        TypeError: weight_decay is no number, positions no mapping, or a module declares neither True nor a collection
            of names.
        ValueError: a rate or weight_decay is negative, NaN or infinite, a module declares a name that it does not have,
            or `positions` is given for a model without position embeddings.
    """
    _check_amount("weight_decay", weight_decay)
    if positions is not None:
        if not isinstance(positions, Mapping):
            raise TypeError(
                f"positions={positions!r}: expected options of a group of parameters, such as {{'lr': 1e-4}}"
            )
        for name in ("lr", "weight_decay"):
            _check_amount(f"positions[{name!r}]", positions.get(name))
    free = {id(parameter) for parameter in model.parameters() if parameter.ndim < 2}
    for path, module in model.named_modules():
        declared = True if isinstance(module, NORMS) else getattr(module, "no_weight_decay", ())
        free.update(id(parameter) for parameter in _declared(path or type(module).__name__, module, declared))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decaying: dict[str, Any] = {"params": [parameter for parameter in parameters if id(parameter) not in free]}
    if weight_decay is not None:
        decaying["weight_decay"] = weight_decay
    groups = [decaying, {"params": [each for each in parameters if id(each) in free], "weight_decay": 0.0}]
    return groups if positions is None else _apart(groups, model, positions)


def position_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all position embeddings in a model, those of modules given as `position` included."""
    found: dict[int, nn.Parameter] = {}
    for module in model.modules():
        embedding = module.position if isinstance(module, LambdaLayer) else module
        if isinstance(embedding, PositionEmbedding) or (isinstance(module, LambdaLayer) and embedding is not None):
            found |= {id(parameter): parameter for parameter in embedding.parameters()}
    return list(found.values())


def _apart(groups: list[dict[str, Any]], model: nn.Module, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups without the position embeddings, and a group of these."""
    theirs = {id(parameter) for parameter in position_parameters(model)}
    if not theirs:
        raise ValueError(
            f"positions={dict(options)}: the model has no position embeddings with parameters; leave it out"
        )
    embeddings = [parameter for group in groups for parameter in group["params"] if id(parameter) in theirs]
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in theirs]
    return [*groups, {"params": embeddings, "weight_decay": 0.0, **options, "name": POSITIONS}]


def _check_amount(name: str, amount: Any) -> None:
    """Raise TypeError or ValueError unless it is None or a number of at least 0."""
    checks.numbers(**{name: amount})
    if amount is not None and amount < 0:
        raise ValueError(f"{name}={amount}: expected at least 0")


def _declared(path: str, module: nn.Module, declared: Any) -> list[nn.Parameter]:
    """The parameters that a module declares."""
    lenient = callable(declared)  # networks of timm have a method, which also names what they lack
    declared = declared() if lenient else declared
    if isinstance(declared, bool):
        return list(module.parameters()) if declared else []
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise TypeError(f"{path}.no_weight_decay={declared!r}: expected True, or a tuple of names")
    found: list[nn.Parameter] = []
    for name in declared:
        owner, _, last = str(name).rpartition(".")
        try:
            part = getattr(module.get_submodule(owner), last)
        except AttributeError as error:
            if lenient:
                continue
            raise ValueError(f"{path}.no_weight_decay names {name!r}, which it does not have") from error
        if isinstance(part, nn.Module):
            found += part.parameters()
        elif isinstance(part, nn.Parameter):
            found.append(part)
    return found
