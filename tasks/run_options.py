"""Options of a run beside those of trainer, task and data: where results go, how it ends, and what it keeps."""

from __future__ import annotations

from jsonargparse import ActionYesNo
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from lambda_seq.tasks.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lambda_seq.tasks.callbacks.curves import Curves
from lambda_seq.tasks.callbacks.predictions import PredictionFile
from lambda_seq.tasks.callbacks.reports import Reports
from lambda_seq.tasks.recipes import RECIPES


def add_run_options(parser: LightningArgumentParser) -> None:
    """Give a parser of the command line these options."""
    parser.add_argument(
        "--output_dir",
        type=str | None,
        default=None,
        help="Folder for checkpoints, logs, reports and predictions of the run (default: outputs/CONFIG_NAME). "
        "A new fit is refused where another one has left results, unless it goes on with that (--ckpt_path last) or is "
        "to replace it (--overwrite).",
    )
    parser.add_argument(
        "--overwrite",
        action=ActionYesNo,
        nargs="?",
        default=False,
        help="Whether a new fit may replace the checkpoints, the model and the figures that an earlier one has left in "
        "the folder.",
    )
    parser.add_argument(
        "--recipe",
        type=str | None,
        default=None,
        help="What chooses options, by the training data, that are given neither here nor in a configuration, and "
        f"says why: {', '.join(sorted(RECIPES))} (default: nothing). A run that goes on, and its test, take what "
        "was chosen when it began.",
    )
    parser.add_argument(
        "--test_after_fit",
        type=bool,
        default=True,
        help="Whether fit ends with a test of the best checkpoint, or without validation of the last weights. Where "
        "there is no test split, a classification ends with the validation of the best checkpoint.",
    )
    parser.add_argument(
        "--export",
        type=bool,
        default=True,
        help="Whether fit ends with saving the best network to OUTPUT_DIR/model, with labels, tokenizer and a "
        "model card, for `lambda_seq.from_pretrained`.",
    )
    parser.add_argument(
        "--baseline",
        type=bool,
        default=False,
        help="Whether fit ends with a simple baseline on the same data, whose figures stand beside the network's: "
        "what `lambda-seq baseline` does.",
    )
    parser.add_argument(
        "--report",
        type=bool,
        default=True,
        help="Whether fit ends with a page to look at, OUTPUT_DIR/report.html: figures, curves, mistakes, advice.",
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
