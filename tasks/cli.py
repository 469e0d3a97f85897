"""The command line: lambda-seq fit|validate|test|predict --config tasks/configs/NAME.yaml."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO, LayerSync
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch.distributed.fsdp import FSDPModule

from tasks.averaging import WeightEMA
from tasks.checkpoints import BestCheckpoint, LastCheckpoint, SeededSteps
from tasks.classification import Classification
from tasks.curves import Curves
from tasks.data import AudioData, CorpusData, Data, ImageData, ListOpsData, RecallData, TextData
from tasks.distributed import SyncedNorms
from tasks.export import export
from tasks.language_modelling import LanguageModelling
from tasks.predictions import PredictionFile
from tasks.pretraining import MaskedPretraining
from tasks.rendezvous import own_store
from tasks.reports import Reports
from tasks.samples import TextSamples
from tasks.sequence_parallel import make_strategy
from tasks.stopping import STOPPED
from tasks.storage import LAST, AtomicCheckpoints, damage, newest, previous
from tasks.throughput import ProgressBar, Throughput
from tasks.training import Training, whole

# Names that a config may use as class_path
__all__ = [
    "AudioData",
    "Classification",
    "CorpusData",
    "ImageData",
    "LambdaCLI",
    "LanguageModelling",
    "ListOpsData",
    "MaskedPretraining",
    "RecallData",
    "TextData",
    "TextSamples",
    "main",
]

ROOT = Path(__file__).resolve().parent.parent
TRACEBACK = "LAMBDA_SEQ_TRACEBACK"

# What Lightning warns of although it is meant to be so here, or concerns only itself:
EXPECTED = (
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own use of torch
    "Checkpoint directory .* exists and is not empty",  # the output folder is fixed, so that `last` is found again
    "The '.*_dataloader' does not have many workers",  # how many is the user's choice, 0 the safe default
    "Total length of `list` across ranks is zero",  # validation that is switched off
    "The number of training batches .* is smaller than the logging interval",  # of a small data set
)


class LambdaCLI(LightningCLI):
    """LightningCLI with one output folder for a run, and data that tell the model their sizes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The output folder, our callbacks, and the link from data to model."""
        parser.add_argument(
            "--output_dir",
            type=str | None,
            default=None,
            help="Folder for checkpoints, logs, reports and predictions of the run (default: outputs/CONFIG_NAME). "
            "A new fit in the same folder replaces its checkpoints and curves.",
        )
        parser.add_argument(
            "--test_after_fit", type=bool, default=True, help="Whether fit ends with a test of the best checkpoint."
        )
        parser.add_argument(
            "--export",
            type=bool,
            default=True,
            help="Whether fit ends with saving the best network to OUTPUT_DIR/model, with labels, tokenizer and a "
            "model card, for `lambda_seq.from_pretrained`.",
        )
        parser.add_argument(
            "--threads",
            type=PositiveInt | None,
            default=None,
            help="Threads that torch computes with on the CPU (default: torch's choice, one per core). Small networks "
            "are often fastest with 1.",
        )
        parser.add_argument(
            "--ema_decay",
            type=float | None,
            default=None,
            help="Validate, test and keep an exponential moving average of the weights in their place, of this decay "
            "per step, such as 0.9999; it grows from 0.1 at the first steps (default: no average).",
        )
        parser.add_argument(
            "--sequence_parallel",
            type=PositiveInt,
            default=1,
            help="Devices that share each sequence, for sequences that are longer than one device holds; divides the "
            "number of devices, and the others are data-parallel.",
        )
        parser.add_lightning_class_args(BestCheckpoint, "best")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(Curves, "curves")
        parser.add_lightning_class_args(Reports, "reports")
        parser.add_lightning_class_args(PredictionFile, "predictions")
        parser.link_arguments("data.facts", "model.init_args.facts", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a configuration that is not in the working folder may be named as from the project's root."""
        given = sys.argv[1:] if args is None else args
        self.config = parser.parse_args([_located(word) for word in given])  # type: ignore[union-attr]

    def _parse_ckpt_path(self) -> None:
        """Lightning would replace the configured model by the checkpoint's; here a task refuses one that differs."""

    def before_instantiate_classes(self) -> None:
        """Fill in the paths that depend on the output folder and which checkpoint is meant; set the threads."""
        config = self.config[self.subcommand]
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        output = Path(
            config.output_dir or Path("outputs") / (Path(str(config.config[-1])).stem if config.config else "run")
        )
        checkpoints = output / "checkpoints"
        config.output_dir = str(output)
        config.best.dirpath = config.best.dirpath or str(checkpoints)
        config.last.dirpath = config.last.dirpath or str(checkpoints)
        config.curves.path = config.curves.path or str(output / "curves.png")
        config.reports.folder = config.reports.folder or str(output)
        config.predictions.path = config.predictions.path or str(output / "predictions.csv")
        if config.best.monitor is None:
            config.best.monitor, mode = _monitor(config.model.class_path)
            config.best.mode = config.best.mode or mode
        config.trainer.default_root_dir = config.trainer.default_root_dir or str(output)
        config.ckpt_path = self._checkpoint(config.ckpt_path, Path(config.best.dirpath), Path(config.last.dirpath))
        config.weights_only = True
        if self.subcommand == "predict":
            config.return_predictions = False  # they go to a file

    def _checkpoint(self, given: str | None, best: Path, last: Path) -> str | None:
        """The file of a checkpoint named by path, as "best" or as "last".

        By default fit begins anew, and all others take the best, or the last of a training without validation.
        """
        if given is None and self.subcommand == "fit":
            return None
        named = {"best": best / "best.ckpt", "last": last / LAST}
        file = named.get(given or "best", Path(given or ""))
        if given is None and not file.is_file():
            file = named["last"]
        if file == named["last"] and (file.is_file() or previous(file).is_file()):
            return str(newest(file))
        if file.is_file():
            if wrong := damage(file):
                raise ValueError(
                    f"ckpt_path={given!r}: {file} cannot be used, {wrong}; name another, such as {named['last']}"
                )
            return str(file)
        if given == "last" and self.subcommand == "fit":  # so that one command both starts and continues a run
            print(f"ckpt_path='last': there is no {file} yet; training begins anew", file=sys.stderr)
            return None
        raise FileNotFoundError(
            f"ckpt_path={given!r}: there is no file {file}; train first with `lambda-seq fit`, or name a checkpoint "
            "with --ckpt_path"
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with loggers in the output folder, progress bar and callbacks."""
        trainer = self._get(self.config_init, "trainer")
        output = self._get(self.config_init, "output_dir")
        if trainer.logger is None or trainer.logger is True:
            kwargs["logger"] = self.subcommand == "fit" and [
                TensorBoardLogger(output, name="tensorboard"),
                CSVLogger(output, name="csv"),
            ]
        together = self._get(self.config_init, "sequence_parallel")
        if together > 1:
            kwargs["strategy"] = make_strategy(together, trainer.strategy)
        callbacks = [*(trainer.callbacks or []), SeededSteps(self._get(self.config, "seed_everything") or 0)]
        decay = self._get(self.config_init, "ema_decay")
        if decay is not None and self.subcommand == "fit":
            callbacks.append(WeightEMA(decay))
        callbacks.append(Throughput())
        if kwargs.get("logger", trainer.logger) and not trainer.fast_dev_run:
            callbacks.append(LearningRateMonitor("step"))
        if trainer.enable_progress_bar is not False:
            callbacks.append(ProgressBar())
        given = trainer.plugins or []
        plugins = list(given) if isinstance(given, list) else [given]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpoints())
        if trainer.sync_batchnorm and not any(isinstance(plugin, LayerSync) for plugin in plugins):
            plugins.append(SyncedNorms())
        return super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)

    def after_fit(self) -> None:
        """Test the best checkpoint, save its network by itself, and say what the run has left where."""
        trainer, output = self.trainer, Path(self._get(self.config, "output_dir"))
        kept = self._get(self.config_init, "best")
        best = Path(kept.dirpath) / "best.ckpt" if kept.best_model_path else None
        tested: dict[str, Any] = {}
        if best and self._get(self.config, "test_after_fit") and "test" in self.datamodule.splits:
            tested |= trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, weights_only=True)[0]
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        files = {
            "best checkpoint": best,
            "last checkpoint": Path(self._get(self.config, "last").dirpath) / LAST,
            "model": self._export(best, tested),
            "curves": Path(self._get(self.config, "curves").path),
        }
        if tested:
            reports = Path(self._get(self.config, "reports").folder)
            files |= {"report": reports / "test_report.csv", "confusion matrix": reports / "test_confusion_matrix.png"}
        summary = tested | {name: str(file) for name, file in files.items() if file and file.exists()}
        (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        for name, value in summary.items():
            print(f"{name:22} {value:.4f}" if isinstance(value, float) else f"{name:22} {value}")

    def _export(self, best: Path | None, tested: dict[str, float]) -> Path | None:
        """The folder of the best network, or without validation of the last; none of a task that makes no model."""
        if not self._get(self.config, "export") or not isinstance(self.model, Training) or not self.model.exports:
            return None
        metrics, source = tested, best or Path(self._get(self.config, "last").dirpath) / LAST
        if isinstance(self.model, FSDPModule):  # its weights are spread, those of the file are not
            whole(self.model, source)
        elif best and not tested:  # a test has loaded its weights already
            self.model.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
        if best and not tested:
            kept = self._get(self.config_init, "best")
            metrics = {kept.monitor: float(kept.best_model_score)}
        folder = Path(self._get(self.config, "output_dir")) / "model"
        return export(self.model, folder, source=getattr(self.datamodule, "path", ""), metrics=metrics)


def main() -> None:
    """Run the command line. An error is one message; with LAMBDA_SEQ_TRACEBACK=1 it comes with its traceback."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of jsonargparse
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)
    lightning_log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    lightning_log.addFilter(lambda record: "Tip: For seamless" not in record.getMessage())  # other products
    try:
        with own_store():
            LambdaCLI(
                LightningModule,
                Data,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                save_config_kwargs={"overwrite": True},
            )
    except SIGTERMException as stop:  # of Lightning, as in a test, it comes without a status
        sys.exit(STOPPED if stop.code is None else stop.code)
    except (ValueError, TypeError, OSError, UnpicklingError, MisconfigurationException) as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"error: {_message(error)}\n({TRACEBACK}=1 shows where)", file=sys.stderr)
        sys.exit(1)


def _message(error: BaseException) -> str:
    """The error's message, without what jsonargparse and worker processes put around it."""
    while error.__cause__ and str(error).startswith("Does not validate against any of the Union subtypes"):
        error = error.__cause__
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return text or type(error).__name__


def _monitor(class_path: str) -> tuple[str, str]:
    """The metric that tells which checkpoint of a task is best, and whether "max" or "min" of it is."""
    module, _, name = class_path.rpartition(".")
    return getattr(getattr(importlib.import_module(module), name), "monitor", ("val/accuracy", "max"))


def _located(word: str) -> str:
    """A configuration that is not found here, but from the project's root, as that; any other word as it is."""
    option, equals, value = word.rpartition("=")
    if Path(value).suffix in (".yaml", ".yml") and not Path(value).exists() and (ROOT / value).is_file():
        return f"{option}{equals}{ROOT / value}"
    return word


if __name__ == "__main__":
    main()
