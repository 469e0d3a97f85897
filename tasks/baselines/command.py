"""The command `lambda-seq baseline`, and what a fit says of a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lambda_seq.tasks import INSTALL
from lambda_seq.tasks.baselines.fitted import COMPARED
from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.data.base import Data


def check_comparable(task: Any) -> None:
    """That a baseline can stand beside the figures of a task; before anything is trained.

    Raises:
        ValueError: it has no figure that a baseline has, too.
        ModuleNotFoundError: scikit-learn is missing.
    """
    if getattr(task, "compared", None) not in COMPARED:
        raise ValueError(
            f"baseline=True: {type(task).__name__} learns something else than baselines do, which tell classes apart "
            "or predict the next token; leave it out"
        )
    if find_spec("sklearn") is None:
        raise ModuleNotFoundError(f"baselines need scikit-learn: {INSTALL}", name="sklearn")


def run(data: Data, folder: Path) -> None:
    """Fit the baseline for these data, say what it reaches, and write it to `baseline.json` in a folder.

    Raises:
        ValueError: see `fit_baseline`.
    """
    found = fit_baseline(data)
    file = found.write(folder)
    print(found.line)
    show(found.logged() | {"seconds": round(found.seconds, 1), "baseline": str(file)})


def beside(trainer: Trainer, folder: Path, tested: Mapping[str, float], kept: Any) -> tuple[dict[str, Any], str]:
    """Figures of the baseline to stand beside a network's, and what is to be said; a fit that is done stays so.

    They are of the test, or without one of validation.

    Args:
        trainer: that has trained.
        folder: of the run, where `baseline.json` is written.
        tested: figures of the test, if there was one.
        kept: the callback that has kept the best checkpoint.
    """
    try:
        found = fit_baseline(trainer.datamodule)  # type: ignore[attr-defined]
        file = found.write(folder)
    except (Exception, KeyboardInterrupt) as error:
        reason = str(error).strip() or type(error).__name__
        how = "was interrupted" if isinstance(error, KeyboardInterrupt) else f"could not be fitted ({reason})"
        return {}, f"the baseline {how}; all else of this fit is done. It comes by itself with: lambda-seq baseline"
    stage = "test" if tested else "val"
    network = {name: float(value) for name, value in trainer.callback_metrics.items()} | dict(tested)
    if not tested and kept.best_model_path:
        network[kept.monitor] = float(kept.best_model_score)
    own = {name.removeprefix(f"{stage}/"): value for name, value in network.items() if name.startswith(f"{stage}/")}
    lines = [found.line, found.beside(own, stage, trainer.lightning_module.compared)]  # type: ignore[arg-type]
    limit = getattr(trainer, f"limit_{stage}_batches")
    if isinstance(limit, int) or limit != 1.0:
        lines.append(f"the network's figures are of trainer.limit_{stage}_batches={limit}, the baseline's of all rows")
    return found.logged(stage) | {"baseline": str(file)}, "\n".join(line for line in lines if line)


def show(values: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    width = max(22, *(len(name) for name in values))
    for name, value in values.items():
        print(f"{name:{width}} {value:.4f}" if isinstance(value, float) else f"{name:{width}} {value}")
