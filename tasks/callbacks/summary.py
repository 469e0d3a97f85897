"""What a network is made of, said before the first step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelSummary
from rich.console import Console
from rich.table import Table

PARTS = 2  # levels: the network, and what it consists of
SHOWN = ("Name", "Type", "Params")


class NetworkSummary(ModelSummary):
    """A table of the network's parts that have parameters, and how many are trained.

    Lightning's has a line for each metric, and FLOPs of a sample input, which tasks do not have: zero.
    """

    def __init__(self) -> None:
        super().__init__(max_depth=PARTS)

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *others: Any,
        **more: Any,
    ) -> None:
        """Print it; `model_size` in megabytes."""
        columns = dict(summary_data)
        table = Table()
        for name in SHOWN:
            table.add_column(name, justify="right" if name == "Params" else "left")
        for row in zip(*(columns[name] for name in SHOWN), strict=True):
            if row[-1].strip() != "0":
                table.add_row(*row)
        console = Console()
        console.print(table)
        console.print(said(total_parameters, trainable_parameters, model_size), highlight=False)


def said(total: int, trained: int, megabytes: float) -> str:
    """The numbers in a line."""
    which = "all of them trained" if trained == total else f"{trained:,} of them trained"
    return f"{total:,} parameters, {megabytes:.3g} MB, {which}"
