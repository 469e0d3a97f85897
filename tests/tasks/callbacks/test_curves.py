"""The picture of the training."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from lambda_seq.tasks.callbacks.curves import Curves, draw

POINTS = {
    "train/loss": [[step, 2 / (1 + step)] for step in range(40)],
    "train/loss_epoch": [[20, 0.8], [40, 0.3]],
    "val/loss": [[20, 0.9], [40, 0.4]],
    "train/accuracy": [[20, 0.5], [40, 0.9]],
    "val/accuracy": [[20, 0.4], [40, 0.8]],
    "lr": [[step, 1e-3] for step in range(40)],
}


def test_a_picture_with_lines_in_each_panel(tmp_path):
    draw(POINTS, tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (570, 1800, 3)
    spread = pixels.max(-1) - pixels.min(-1)
    for panel in np.array_split(spread, 3, axis=1):
        assert (panel > 100).sum() > 100  # colour


def test_panels_are_of_the_scores_there_are(tmp_path):
    bits = {"train/bits_per_byte": POINTS["train/loss_epoch"], "val/bits_per_byte": POINTS["val/loss"]}
    for name, points, panels in (
        ("classes", POINTS, 3),
        ("language", {"lr": POINTS["lr"]} | bits, 3),
        ("pretraining", {"lr": POINTS["lr"]}, 2),
    ):
        draw(points, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (600 * panels, 570)


def test_without_validation_or_any_point(tmp_path):
    draw({"train/loss": POINTS["train/loss"]}, tmp_path / "some.png")
    draw({}, tmp_path / "none.png")
    assert (tmp_path / "none.png").is_file()


def test_points_survive_in_a_checkpoint():
    curves, resumed = Curves(), Curves()
    curves._note("lr", 3, 0.5)
    resumed.load_state_dict(curves.state_dict())
    resumed._note("lr", 4, 0.25)
    assert resumed.points == {"lr": [[3, 0.5], [4, 0.25]]}


def test_a_point_for_each_step_that_is_logged():
    """The loss of the whole step, once, whatever was accumulated, also where that is less at the end."""
    curves = Curves()
    trainer = SimpleNamespace(log_every_n_steps=1, accumulate_grad_batches=2, num_training_batches=5, global_step=0)
    trainer.optimizers, trainer.is_last_batch = [SimpleNamespace(param_groups=[{"lr": 0.1}])], False
    for batch in range(5):
        trainer.global_step = (batch + 1) // 2 + (batch == 4)
        trainer.callback_metrics = {"train/loss_step": torch.tensor(10.0 * (batch + 1))}
        curves.on_train_batch_end(trainer, None, {"loss": torch.tensor(0.5)}, None, batch)
    assert curves.points["train/loss"] == [[1, 20], [2, 40], [3, 50]]
    trainer.log_every_n_steps = 0
    curves.on_train_batch_end(trainer, None, {}, None, 4)
    assert len(curves.points["lr"]) == 3
