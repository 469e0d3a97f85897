"""The network that a configuration names, for what the data are, and what it counts in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lambda_seq.models import Model, accepted_options, create_model
from lambda_seq.models.hub.older import current_options
from lambda_seq.models.registry import advised
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.facts import Facts


def network_for(
    network: str,
    options: Mapping[str, Any] | None,
    facts: Facts | Mapping[str, Any],
    *,
    head: str | None = None,
    head_options: Mapping[str, Any] | None = None,
) -> Model:
    """The network of this name, with the sizes that follow from the data where it takes them; `options` win.

    Args:
        network: a name of the registry.
        options: arguments of the network.
        facts: of the data.
        head: what the network has to answer, see `lambda_seq.models.heads`; None for what it does.
        head_options: of that head.

    Raises:
        ValueError: no such network, one that takes other input than the data are, or one without this head.
    """
    facts, accepted = Facts.of(facts), accepted_options(network)
    given = {name: value for name, value in facts.options.items() if name in accepted}
    # Configurations that earlier versions wrote have null as a word.
    chosen = {name: None if value in ("None", "null") else value for name, value in (options or {}).items()}
    if head not in (None, chosen.get("head", Model.objective.name)) and "head" in accepted:
        if "head" in chosen:
            raise ValueError(f"options.head={chosen['head']!r}: the task has head={head!r}; leave it out")
        given |= {"head": head} | ({"head_options": dict(head_options)} if head_options else {})
    model = create_model(network, **(given | chosen))
    check_input(network, model.input_kind, facts)
    if head not in (None, model.objective.name):
        raise ValueError(
            f"network={network!r} is a {type(model).__name__}, whose head is {model.objective.name!r}: the task needs "
            f"head={head!r}; choose a network that has it, such as lambda_encoder"
        )
    return model


def network_of(checkpoint: Mapping[str, Any]) -> Model:
    """The network of a checkpoint of a task, with random weights."""
    hparams = checkpoint["hyper_parameters"]
    options = current_options(hparams["network"], hparams.get("options") or {}, checkpoint["state_dict"])
    return network_for(hparams["network"], options, Facts.from_dict(hparams["facts"]))


def adapt(network: nn.Module, data: Any) -> None:
    """Let the modules of a network count the training data that have to, before it is trained on them.

    That is `module.adapt(documents)` where `module.adapts`; every process counts all documents, and finds the same.

    Args:
        network: to be trained.
        data: a data module, whose `training_ids` are the documents; without them a line says that nothing is counted.
    """
    for name, module in network.named_modules():
        if getattr(module, "adapts", False):
            documents = getattr(data, "training_ids", lambda: None)()
            if documents is None:
                note(
                    f"{name}: these data give no documents to count tokens in, so that all weigh alike; with "
                    "--model.options.idf false and --model.options.df_power 0 they do so anyway"
                )
            else:
                module.adapt(documents)


def check_input(network: str, takes: str, facts: Facts) -> None:
    """That the network takes what the data are.

    Raises:
        ValueError: it does not; names the networks that do, and how the data become what it takes.
    """
    if takes != facts.kind:
        remedy = f"choose {advised(facts.kind)}"
        if takes in facts.instead:
            remedy += f", or {facts.instead[takes]}"
        raise ValueError(f"network={network!r} takes {takes} but the data are {facts.kind}: {remedy}")


def described(hparams: Mapping[str, Any]) -> str:
    """Network, options and data of a model, in a line."""
    options = hparams["facts"]["options"] | (hparams["options"] or {})
    return f"{hparams['network']}({', '.join(f'{name}={value!r}' for name, value in sorted(options.items()))})"
