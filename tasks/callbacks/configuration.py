"""The options of a run, in its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

CONFIG = "config.yaml"


class SavedConfig(SaveConfigCallback):
    """Lightning's, which puts options among a logger's files, and those of a fit into OUTPUT_DIR/config.yaml as well.

    Commands without loggers write theirs to OUTPUT_DIR under a name of their own, such as test_config.yaml. That an
    earlier run may be replaced is said for one command alone, and is not kept.
    """

    def __init__(self, parser: Any, config: Any, **options: Any) -> None:
        super().__init__(parser, config.clone(), **options)
        self.config.overwrite = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save, before anything is trained."""
        self.config_filename = CONFIG if stage == "fit" else f"{TrainerFn(stage).value}_{CONFIG}"
        if not self.already_saved:
            self.log_dir = str(trainer.log_dir)  # which the processes tell each other
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy what was saved to where it is seen."""
        file = Path(self.config.output_dir, CONFIG)
        if stage == "fit" and os.path.abspath(self.log_dir) != str(file.parent.absolute()):
            file.parent.mkdir(parents=True, exist_ok=True)
            get_filesystem(self.log_dir).get_file(f"{self.log_dir}/{CONFIG}", str(file))
