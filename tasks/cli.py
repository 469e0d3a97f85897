"""The command line: lambda-seq fit|validate|test|predict|baseline|data --config NAME."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelSummary
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO, LayerSync
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from lambda_seq.tasks import INSTALL, WHERE_NEEDED
from lambda_seq.tasks.after_fit import SUMMARY, AfterFit
from lambda_seq.tasks.baselines.command import check_comparable, run
from lambda_seq.tasks.baselines.fitted import FILE as BASELINE
from lambda_seq.tasks.callbacks.averaging import WeightEMA
from lambda_seq.tasks.callbacks.checkpoints import SeededSteps
from lambda_seq.tasks.callbacks.configuration import SavedConfig
from lambda_seq.tasks.callbacks.ending import Ending
from lambda_seq.tasks.callbacks.kept_memory import KeptMemory
from lambda_seq.tasks.callbacks.resuming import Resuming
from lambda_seq.tasks.callbacks.samples import TextSamples
from lambda_seq.tasks.callbacks.step_memory import MemoryNote
from lambda_seq.tasks.callbacks.summary import NetworkSummary
from lambda_seq.tasks.callbacks.throughput import ProgressBar, Throughput
from lambda_seq.tasks.checkpointing.choosing import chosen_checkpoint
from lambda_seq.tasks.checkpointing.options import class_at, flattened
from lambda_seq.tasks.checkpointing.runs import alone, check_replaces
from lambda_seq.tasks.checkpointing.storage import AtomicCheckpoints, check_places
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.command_line.parser import TRACEBACK, Parser
from lambda_seq.tasks.command_line.short_help import answer, asked, without
from lambda_seq.tasks.configurations import check_order, located
from lambda_seq.tasks.data import Data
from lambda_seq.tasks.inspection import inspecting
from lambda_seq.tasks.inspection.guessing import called, with_configuration
from lambda_seq.tasks.language_modelling import LanguageModelling
from lambda_seq.tasks.memory.advice import naming_options
from lambda_seq.tasks.old_names import PARSER_MODE, renamed_words
from lambda_seq.tasks.pretraining import MaskedPretraining
from lambda_seq.tasks.recipes.choosing import say
from lambda_seq.tasks.recipes.following import Following
from lambda_seq.tasks.report.findings import Findings
from lambda_seq.tasks.run_options import add_run_options
from lambda_seq.tasks.strategies.distributed import SyncedNorms
from lambda_seq.tasks.strategies.processes import together
from lambda_seq.tasks.strategies.rendezvous import check_port, own_store
from lambda_seq.tasks.strategies.sequence_parallel import make_strategy
from lambda_seq.tasks.strategies.stopping import STOPPED, ending_when_asked
from lambda_seq.tasks.trainers import CommandTrainer, given_callbacks, use_plain_values

# A config names data modules and tasks by their class alone, as long as these are imported
__all__ = ["Classification", "LambdaCLI", "LanguageModelling", "MaskedPretraining", "TextSamples", "main"]

DATA_ONLY = {"baseline": (run, BASELINE), "inspect": (inspecting.run, inspecting.FILE)}  # and the files they write

ERRORS = (  # of what was given, whose message says all
    *(ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError, MemoryError),
    *(UnpicklingError, MisconfigurationException),
)

NO_METRIC = "Early stopping conditioned on metric"  # that is not logged: a RuntimeError, though of what was given

# What Lightning warns of although it is meant to be so here, or concerns only itself:
EXPECTED = (
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own use of torch
    "torch.distributed.nn.functional.all_gather is deprecated",  # likewise
    "Be aware that when using `ckpt_path`, callbacks used",  # of options that changed, which `Resuming` says
    "Checkpoint directory .* exists and is not empty",  # the output folder is fixed, so that `last` is found again
    "The '.*_dataloader' does not have many workers",  # how many is the user's choice, 0 the safe default
    "Total length of `list` across ranks is zero",  # validation that is switched off
    "The number of training batches .* is smaller than the logging interval",  # of a small data set
)

UNSAID = (  # what Lightning says of other products, and of our own summary
    "Tip: For seamless",
    "Trainer already configured with model summary callbacks",
)


class LambdaCLI(LightningCLI):
    """LightningCLI with one output folder for a run.

    What is made of options costs nothing: the trainer reads the data (`Data.prepare_data`, `Data.setup`), and then the
    task makes its network for them (`Training.configure_model`). Wrong options so end a command at once.
    """

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that reads configurations of versions before, too."""
        return super().init_parser(**{"prog": "lambda-seq", "parser_mode": PARSER_MODE} | kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The output folder, how a run ends, and our callbacks."""
        add_run_options(parser)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Those of Lightning, and those that take what fit does, but need no trainer.

        Where the command line begins with one, that one alone: to make the parsers of all takes half a second.
        """
        known: dict[str, set[str]] = {**LightningCLI.subcommands(), **{name: set() for name in DATA_ONLY}}
        word = called(sys.argv[1]) if len(sys.argv) > 1 else ""
        return {word: known[word]} if word in known else known

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; configurations may be named, and classes as versions before called them."""
        given = sys.argv[1:] if args is None else args
        if args is None and asked(sys.argv[1:]):
            # Private to Lightning: the parser of a command
            answer(parser, self._parser, renamed_words(located(without(sys.argv[1:]))))  # and ends
        words = located(with_configuration(given))  # type: ignore[arg-type]
        check_order(words)
        self._following = Following(parser, renamed_words(words))
        self._checkpoint: list[str | None] = []  # that is meant, once it is known
        if prints := self._following.put_aside():
            self.config = parser.parse_args(self._following.words)
            self.subcommand = self.config.subcommand
            try:
                self._complete()
                self._following.choose(self.config)
            except ERRORS as error:
                say(f"{self.config[self.subcommand].recipe}: its choices are left out: {_message(error)}")
        self.config = parser.parse_args([*self._following.words, *prints])

    # Private to Lightning, which has no public way to leave it out
    def _parse_ckpt_path(self) -> None:
        """Lightning would replace the configured model by the checkpoint's; here a task refuses one that differs."""

    def before_instantiate_classes(self) -> None:
        """Fill in what follows from other options, and what a recipe chooses."""
        self._complete()
        self.config_dump: dict[str, Any] = {}  # Lightning's, which nothing asks for of the options without the choices
        chosen = self.subcommand != "inspect" and self._following.choose(self.config, self._check)
        del self.config_dump
        if chosen:
            self.config = self.parser.parse_args(self._following.words, again=True)
            self._complete()

    def _check(self, made: Any) -> None:
        """Refuse callbacks and places for results that are wrong, before data are read."""
        given_callbacks(made.trainer.callbacks)
        if not made.trainer.fast_dev_run:
            self._check_places(str(self.subcommand))

    def _check_places(self, subcommand: str) -> None:
        """Refuse to write where that is not possible, or where it would replace what another run has left."""
        check_places(*self._places(subcommand))
        if subcommand == "fit" and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            options = self.config[subcommand]
            output, best, last = map(Path, (options.output_dir, options.best.dirpath, options.last.dirpath))
            check_replaces(output, best, last, self._asked, overwrite=options.overwrite)

    def _complete(self) -> None:
        """Fill in the paths that depend on the output folder and which checkpoint is meant; set the threads."""
        config = self.config[self.subcommand]
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        named = Path("outputs") / (Path(str(config.config[-1])).stem if config.config else "run")
        output = Path(config.output_dir or named).expanduser()  # no shell does that behind the = of an option
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
        folders = Path(config.best.dirpath), Path(config.last.dirpath)
        if self.subcommand not in DATA_ONLY:
            if not self._checkpoint:
                self._asked = config.ckpt_path
                self._checkpoint.append(chosen_checkpoint(config.ckpt_path, *folders, fit=self.subcommand == "fit"))
            config.ckpt_path = self._checkpoint[0]
            config.weights_only = True
        else:
            config.ckpt_path = None  # they have none
        use_plain_values(config.trainer.callbacks)
        if self.subcommand == "predict":
            config.return_predictions = False  # they go to a file

    def instantiate_classes(self) -> None:
        """Data, task and trainer; some commands need no trainer, whose devices need not be there.

        What a recipe has read of the data is not read again.
        """
        if self.subcommand in DATA_ONLY:
            self.config_init = self.parser.instantiate_classes(self.config)
            self.datamodule = self.config_init[self.subcommand].data
        else:
            super().instantiate_classes()
        self._following.hand_over(self.datamodule)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with loggers in the output folder, progress bar and callbacks."""
        # Private to Lightning: a value of the subcommand's configuration
        trainer = self._get(self.config_init, "trainer")
        output = self._get(self.config_init, "output_dir")
        if not trainer.barebones and (trainer.logger is None or trainer.logger is True):
            kwargs["logger"] = self.subcommand == "fit" and [
                TensorBoardLogger(output, name="tensorboard"),
                CSVLogger(output, name="csv"),
            ]
        together = self._get(self.config_init, "sequence_parallel")
        if together > 1:
            kwargs["strategy"] = make_strategy(together, trainer.strategy)
        given = trainer.plugins or []
        plugins = list(given) if isinstance(given, list) else [given]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpoints())
        if trainer.sync_batchnorm and not any(isinstance(plugin, LayerSync) for plugin in plugins):
            plugins.append(SyncedNorms())
        kwargs |= {
            "callbacks": self._callbacks(trainer, bool(kwargs.get("logger", trainer.logger))),
            "plugins": plugins,
        }
        unwanted = () if self._keeps(trainer) else ("best", "last")
        # Private to Lightning, whose public `instantiate_trainer` leaves no callback out
        keys = [key for key in self._parser(self.subcommand).callback_keys if key not in unwanted]
        return self._instantiate_trainer({**trainer, **kwargs}, [self._get(self.config_init, key) for key in keys])

    @staticmethod
    def _keeps(trainer: Any) -> bool:
        """Whether checkpoints are kept."""
        return trainer.enable_checkpointing is not False and not trainer.barebones

    def _callbacks(self, trainer: Any, logs: bool) -> list[Callback]:
        """The configured callbacks, and those that each run has but for the ones that are options of their own."""
        callbacks = given_callbacks(trainer.callbacks)
        callbacks.append(SeededSteps(self._get(self.config, "seed_everything") or 0))
        callbacks += self._following.callbacks
        if self.subcommand == "fit":
            options = flattened(self.config[self.subcommand].as_dict())
            callbacks.append(Resuming(options, self._get(self.config, "ckpt_path")))
            ends = {"tests": self._get(self.config, "test_after_fit"), "exports": self._get(self.config, "export")}
            folder = Path(self._get(self.config, "last.dirpath"))
            callbacks += [Ending(**ends, keeps=self._keeps(trainer), folder=folder), Findings()]
            summary = trainer.enable_model_summary is not False and not trainer.barebones
            if summary and not any(isinstance(one, ModelSummary) for one in callbacks):
                callbacks.append(NetworkSummary())
            callbacks.append(MemoryNote(summary, shared=self._get(self.config, "sequence_parallel") > 1))
            decay = self._get(self.config_init, "ema_decay")
            if decay is not None:
                callbacks.append(WeightEMA(decay))
        callbacks += [KeptMemory(), Throughput()]
        if logs and not any(isinstance(one, LearningRateMonitor) for one in callbacks):
            callbacks.append(LearningRateMonitor("step"))
        shows = trainer.enable_progress_bar is not False and not trainer.barebones
        if shows and not any(isinstance(callback, AnyProgressBar) for callback in callbacks):
            callbacks.append(ProgressBar())
        return callbacks

    # Private to Lightning: `before_fit` and `after_fit` cannot hold what is to be given back whatever ends the fit
    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; a fit alone in its folders.

        Raises:
            ValueError: results cannot be written where they are to be, another run writes there, or another program
                uses the port at which processes would meet.
        """
        if subcommand in DATA_ONLY:
            self._look_or_fit_baseline(subcommand)
            return
        if subcommand == "fit" and self._get(self.config, "baseline"):
            check_comparable(self.model)
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._check_places(subcommand)
        check_port(self.trainer)
        with naming_options(self.datamodule, self.trainer), ExitStack() as lock:
            if subcommand == "fit" and rank_zero_only.rank == 0 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                folders = [self._get(self.config, name) for name in ("output_dir", "best.dirpath", "last.dirpath")]
                lock.enter_context(alone(map(Path, folders)))
            super()._run_subcommand(subcommand)

    def _look_or_fit_baseline(self, subcommand: str) -> None:
        """What is done in one process alone."""
        check_places(*self._places(subcommand))
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            DATA_ONLY[subcommand][0](self.datamodule, Path(self._get(self.config, "output_dir")))

    def _places(self, subcommand: str) -> tuple[dict[str, Path], dict[str, Path]]:
        """Files and folders that a subcommand writes results to, by their options."""
        if subcommand == "predict":
            return {"predictions.path": Path(self._get(self.config, "predictions.path"))}, {}
        if subcommand in DATA_ONLY:
            output = Path(self._get(self.config, "output_dir"))
            return {"output_dir": output / DATA_ONLY[subcommand][1]}, {"output_dir": output}
        reports = {"reports.folder": Path(self._get(self.config, "reports.folder"))}
        if subcommand != "fit":
            return {}, reports
        output = Path(self._get(self.config, "output_dir"))
        below = ("model", "csv", "tensorboard")
        folders = {"output_dir": output} | {f"output_dir, its {name}": output / name for name in below} | reports
        return {
            "curves.path": Path(self._get(self.config, "curves.path")),
            "output_dir": output / SUMMARY,
        }, folders

    def after_fit(self) -> None:
        """Test the best checkpoint, save its network by itself, and say what the run has left where."""
        made = self.config_init[self.subcommand]
        AfterFit(self.trainer, self.model, self.datamodule, made, keeps=self._keeps(made.trainer))()


def main() -> None:
    """Run the command line. An error is one message; with LAMBDA_SEQ_TRACEBACK=1 it comes with its traceback."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of jsonargparse
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)
    lightning_log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    lightning_log.addFilter(lambda record: not any(words in record.getMessage() for words in UNSAID))
    try:
        with together(), ending_when_asked(), own_store():
            LambdaCLI(
                LightningModule,
                Data,
                trainer_class=CommandTrainer,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                save_config_callback=SavedConfig,
                save_config_kwargs={"overwrite": True},
                parser_class=Parser,
            )
    except SIGTERMException as stop:  # of Lightning, as in a test, it comes without a status
        sys.exit(STOPPED if stop.code is None else stop.code)
    except (*ERRORS, RuntimeError) as error:
        if os.environ.get(TRACEBACK) or not (isinstance(error, ERRORS) or NO_METRIC in str(error)):
            raise
        print(f"error: {_message(error)}\n({TRACEBACK}=1 shows where)", file=sys.stderr)
        sys.exit(1)


def _message(error: BaseException) -> str:
    """The error's message, without what jsonargparse and worker processes put around it."""
    union = "Does not validate against any of the Union subtypes"
    while error.__cause__ and (isinstance(error.__cause__, ModuleNotFoundError) or str(error).startswith(union)):
        error = error.__cause__
    text = str(error).strip()
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in WHERE_NEEDED:
        text = f"{text}: {INSTALL}"
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return text or type(error).__name__


def _monitor(class_path: str) -> tuple[str, str]:
    """The metric that tells which checkpoint of a task is best, and whether "max" or "min" of it is."""
    return getattr(class_at(class_path), "monitor", ("val/accuracy", "max"))


if __name__ == "__main__":
    main()
