"""A training that turns NaN ends, says where, and replaces no good checkpoint."""

import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT, finish, start
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from small_data import QUIET, TINY_ENCODER
from torch.utils.data import DataLoader

from lambda_seq.tasks.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lambda_seq.tasks.callbacks.finite import PATIENCE, finite_weights
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.language_modelling import LanguageModelling
from lambda_seq.tasks.metrics import direction
from lambda_seq.tasks.pretraining import MaskedPretraining

FACTS = {"labels": ["a", "b"], "input": "features", "options": {"num_classes": 2, "in_channels": 2}}
SMALL = {"stem": "features", "dim": 8, "depth": 1, "heads": 2, "scope": 3, "block_norm": "layer", "norm": "layer"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),  # Lightning's own use of torch
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


def rows(count, bad=()):
    """Batches of two rows; those with these numbers have a value that is none."""
    generator = torch.Generator().manual_seed(0)
    found = [{"x": torch.randn(2, 9, 2, generator=generator), "label": torch.tensor([0, 1])} for _ in range(count)]
    for number in bad:
        found[number]["x"][1, 4, 0] = torch.nan
    return DataLoader(found, batch_size=None)


def fit(folder, given, task=Classification, callbacks=(), validation=None, **options):
    torch.manual_seed(0)
    more = {"hidden": 0.9, "span": 1} if task is MaskedPretraining else {}
    made = task("lambda_encoder", SMALL, facts=FACTS, **more)
    options = {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 50} | options
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    last, best = (kind(dirpath=str(folder)) for kind in (LastCheckpoint, BestCheckpoint))
    last.every_n_train_steps = 2
    trainer = Trainer(**quiet, **options, default_root_dir=folder, callbacks=[last, best, *callbacks])
    trainer.fit(made, given, validation or rows(2))
    return made, trainer, best


def saved(folder, name="last"):
    checkpoint = torch.load(folder / f"{name}.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    return checkpoint["global_step"]


@pytest.mark.parametrize("task", [Classification, MaskedPretraining])
@pytest.mark.parametrize(
    ("options", "bad", "step", "kept"),
    [
        ({}, 5, 6, 4),  # seen when step 6 would be saved
        ({"log_every_n_steps": 1}, 6, 7, 6),
        ({"accumulate_grad_batches": 3}, 4, 2, None),  # at the end of the epoch
        ({"val_check_interval": 5}, 4, 5, 4),  # before the validation that the best checkpoint is chosen by
        ({"max_epochs": 2}, 0, 1, None),
    ],
)
def test_it_ends_at_the_next_look_and_says_since_when(tmp_path, task, options, bad, step, kept):
    with pytest.raises(FloatingPointError) as error:
        fit(tmp_path, rows(8, [bad]), task, **options)
    message = str(error.value)
    assert (
        f"the loss is no longer finite at optimizer step {step}, batch {bad} of epoch 0 (counted from 0): " in message
    )
    for option in ("--model.optimizer.lr", "--trainer.gradient_clip_val", "--trainer.precision"):
        assert option in message
    if kept:
        assert f"go on from step {kept} with --ckpt_path last" in message
        assert saved(tmp_path) == kept
    else:
        assert "then begin anew" in message
        assert not (tmp_path / "last.ckpt").exists()
    assert not (tmp_path / "best.ckpt").exists()


class Gradients(Callback):
    """Puts a number in place of the gradients of some optimizer steps."""

    def __init__(self, steps, number):
        self.steps, self.number = steps, number

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step + 1 in self.steps:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(self.number)


def test_weights_that_break_with_the_last_step(tmp_path):
    """No loss has shown it."""
    with pytest.raises(FloatingPointError, match=r"the weights are no longer finite at optimizer step 8, batch 7 of"):
        fit(tmp_path, rows(8), callbacks=[Gradients([8], torch.nan)])
    assert saved(tmp_path) == 6


def mixed():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)], "log_every_n_steps": 1}


def test_steps_that_a_scaler_skips_are_no_end(tmp_path):
    """Neither gradients that overflow nor a batch whose loss does."""
    task, trainer, _ = fit(tmp_path, rows(9, [4, 6]), callbacks=[Gradients([2, 3, 4], torch.inf)], **mixed())
    assert trainer.global_step == saved(tmp_path) == 9
    assert finite_weights(task)


def test_a_loss_that_stays_broken_is_one_with_a_scaler_too(tmp_path):
    with pytest.raises(
        FloatingPointError, match=r"the loss is no longer finite at optimizer step 4, batch 3 of epoch 0"
    ):
        fit(tmp_path, rows(4 + PATIENCE, range(3, 4 + PATIENCE)), **mixed())


def test_what_is_no_number_is_never_best(tmp_path, capsys):
    """Not even as the first."""
    best = BestCheckpoint("val/loss", dirpath=str(tmp_path / "own"))
    for bad, kept in (([1], ""), ([], "best.ckpt")):
        found = fit(tmp_path, rows(4), callbacks=[best], validation=rows(2, bad))
        assert Path(best.best_model_path).name == kept
        assert found[1].global_step == 4
        assert ("warning: val/loss is not a number at step 4" in capsys.readouterr().err) is bool(bad)


@pytest.mark.parametrize("task", [Classification, LanguageModelling, MaskedPretraining])
def test_the_command_ends_with_status_1(cli, stories, monkeypatch, task):
    """And goes on from the step that it names."""
    config = "language_modelling" if task is LanguageModelling else "text_classification"
    command = ("fit", "--config", f"tasks/configs/{config}.yaml", f"--model={task.__name__}", "--data.path", stories)
    command = (*command, *(["--data.length=16"] if task is LanguageModelling else []))
    command = (*command, *TINY_ENCODER, *QUIET, "--data.batch_size=4", "--last.every_n_train_steps=1")
    command = (*command, "--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--output_dir=run")
    command = (*command, "--trainer.callbacks=[]", "--trainer.val_check_interval=1.0", "--test_after_fit=false")
    weigh = task.weigh

    def broken(self, loss, count):
        weigh(self, loss * (torch.nan if self.global_step == 2 else 1), count)

    with monkeypatch.context() as patch:
        patch.setattr(task, "weigh", broken)
        failed = cli(*command, code=1)
    assert "error: training has turned NaN: the loss is no longer finite at optimizer step 3, batch 2" in failed.err
    assert "go on from step 2 with --ckpt_path last" in failed.err
    assert saved(Path("run/checkpoints")) == 2
    cli(*command, "--ckpt_path=last")
    assert saved(Path("run/checkpoints")) == 4


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_end_together(stories, strategy):
    """Though only the rows of one of them are broken."""
    script = Path("broken.py")
    script.write_text(
        "import torch\nfrom lambda_seq.tasks.cli import main\n"
        "from lambda_seq.tasks.classification import Classification as Task\n"
        "inputs = Task.inputs\n"
        "def broken(self, batch):\n"
        "    x, mask = inputs(self, batch)\n"
        "    if self.global_step == 3 and self.global_rank == 1:\n"
        "        self.network.head.bias.data.fill_(torch.nan)\n"
        "    return x, mask\n"
        "Task.inputs = broken\nmain()\n"
    )
    command = ("fit", "--config", ROOT / "tasks/configs/text_classification.yaml", *TINY_ENCODER, *QUIET)
    command = (*command, "--data.path", stories, "--data.batch_size=2", "--trainer.max_epochs=2")
    command = (*command, "--trainer.accelerator=cpu", "--trainer.devices=2", f"--trainer.strategy={strategy}")
    printed = finish(start(sys.executable, script, *command, "--output_dir=run"), code=1)
    assert "the loss is no longer finite at optimizer step 4, batch 3 of epoch 0" in printed


def test_answers_to_a_validation_or_test_that_are_not_finite_are_said(tmp_path, capsys):
    task, trainer, _ = fit(tmp_path, rows(4), validation=rows(3, [1]), num_sanity_val_steps=0)
    assert "warning: val/loss is nan at step 4: some answers are not finite" in capsys.readouterr().err
    trainer.test(task, rows(3, [2]), verbose=False)
    assert "warning: test/loss is nan at step 4: some answers are not finite" in capsys.readouterr().err
    fit(tmp_path, rows(4), num_sanity_val_steps=0)
    assert "val/loss" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        *(
            (f"val/{name}", "min")
            for name in ("loss", "calibration_error", "perplexity", "bits_per_byte", "mae", "rmse")
        ),
        *((f"val/{name}", "max") for name in ("accuracy", "f1", "f1_micro", "r2", "average_precision", "box_ap")),
    ],
)
def test_which_of_two_figures_is_better(monitor, mode, tmp_path):
    assert BestCheckpoint(monitor, dirpath=str(tmp_path)).mode == mode
    assert direction(monitor) == (1 if mode == "max" else -1)
