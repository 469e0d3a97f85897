"""What a baseline has reached, and how that is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lambda_seq.tasks.metrics import direction

FILE = "baseline.json"
COMPARED = ("accuracy", "bits_per_byte", "f1", "entity_f1", "rmse")  # figures that a network is compared by


@dataclass(frozen=True)
class Fitted:
    """A baseline that was fitted.

    Attributes:
        name: what it is, "TF-IDF of words with logistic regression".
        line: what was fitted on what, in a line.
        figures: by stage ("val", "test") and name, as the network's are called.
        chosen: what was chosen on validation, as primitives.
        seconds: that all of it took.
    """

    name: str
    line: str
    figures: dict[str, dict[str, float]]
    chosen: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def logged(self, *stages: str) -> dict[str, float]:
        """Figures of these stages, or of all, by the names that simple rules are logged by: STAGE/baseline_NAME."""
        return {
            f"{stage}/baseline_{name}": figure
            for stage, found in self.figures.items()
            if not stages or stage in stages
            for name, figure in found.items()
        }

    def write(self, folder: Path) -> Path:
        """Write `baseline.json` into a folder, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {"baseline": self.name, "fitted": self.line, **self.logged()}
        found |= {"chosen": self.chosen, "seconds": round(self.seconds, 1)}
        (folder / FILE).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder / FILE

    def beside(self, network: Mapping[str, float], stage: str, compared: str) -> str | None:
        """The difference between a network's figures of a stage and these, in words; None if there is none to tell.

        Args:
            network: its figures, by name without the stage.
            stage: "val" or "test".
            compared: the figure that they are compared by, see `COMPARED`.
        """
        own, theirs = self.figures.get(stage, {}).get(compared), network.get(compared)
        if own is None or theirs is None:
            return None
        said = f"the baseline ({self.name}) reaches {shown(own)}, the network {shown(theirs)}"
        words = compared.replace("_", " ")
        if (theirs - own) * direction(compared) > 0:
            return f"{stage} {words}: {said}"
        if shown(own) == shown(theirs):
            return f"{stage} {words}: {said}: no better than the baseline"
        return f"{stage} {words}: {said}: the network is below the baseline, which is the better choice as it stands"


def shown(figure: float) -> str:
    """A figure with three digits, as "0.872"."""
    return f"{figure:.3f}"
