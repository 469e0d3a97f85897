"""A run that is stopped and resumed is the run that was never stopped, to the last bit."""

import signal
import time
from pathlib import Path

import pytest
import torch
from commands import CLI, end, start
from small_data import QUIET, TINY_ENCODER, TINY_RESNET

# 24 images in batches of 5: 4 steps per epoch (the rest of each is dropped), 8 in all; random crops and dropout.
IMAGES = (
    *("--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.batch_size=5"),
    *("--data.flip=true", "--model.options.dropout=0.3", "--model.options.stochastic_depth=0.2"),
    *("--trainer.max_epochs=2", "--test_after_fit=false", "--trainer.log_every_n_steps=1"),
)


def weights(folder: Path | str, name: str = "last") -> dict[str, torch.Tensor]:
    """All that training has made: weights, moments of the optimizer, learning rates."""
    checkpoint = torch.load(f"{folder}/checkpoints/{name}.ckpt", weights_only=True)
    assert name == "best" or checkpoint["global_step"] == 8
    moments = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, state in checkpoint["optimizer_states"][0]["state"].items()
        for key, value in state.items()
    }
    rates = {"lr": torch.tensor(checkpoint["lr_schedulers"][0]["_last_lr"])}
    return checkpoint["state_dict"] | moments | rates


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def unstopped(cli, pictures):
    cli("fit", *IMAGES, "--data.path", pictures, "--output_dir=whole")
    return weights("whole")


@pytest.mark.parametrize("step", [2, 4, 7])  # in the middle of an epoch, at its end, in the middle of the last
def test_stopped_by_max_steps(cli, pictures, unstopped, step):
    command = ("fit", *IMAGES, "--data.path", pictures, "--output_dir=part")
    cli(*command, f"--trainer.max_steps={step}")
    cli(*command, "--ckpt_path=last")
    assert_same(weights("part"), unstopped)
    assert_same(weights("part", "best"), weights("whole", "best"))
    points = [
        torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["callbacks"]["Curves"]["points"]
        for folder in ("part", "whole")
    ]
    for name in ("train/loss", "lr", "val/loss", "val/accuracy"):
        assert points[0][name] == points[1][name]


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 8))
def test_stopped_anywhere_and_resumed_with_max_steps(cli, pictures, unstopped, step):
    command = ("fit", *IMAGES, "--data.path", pictures, "--output_dir=part")
    cli(*command, f"--trainer.max_steps={step}")
    cli(*command, "--ckpt_path=last", "--trainer.max_steps=8")
    assert_same(weights("part"), unstopped)


def test_resumed_with_worker_processes_from_a_file(cli, pictures, unstopped):
    command = ("fit", *IMAGES, "--data.path", pictures, "--output_dir=part")
    cli(*command, "--trainer.max_steps=3")
    cli(*command, "--ckpt_path=part/checkpoints/last.ckpt", "--data.num_workers=2")
    assert_same(weights("part"), unstopped)


def test_stopped_after_an_epoch_with_the_schedule_given(cli, pictures, unstopped):
    command = ("fit", *IMAGES, "--data.path", pictures, "--output_dir=part", "--model.schedule_steps=8")
    cli(*command, "--trainer.max_epochs=1")
    cli(*command, "--ckpt_path=last")
    assert_same(weights("part"), unstopped)


def test_resumed_from_the_best_and_from_a_periodic_checkpoint(cli, pictures, unstopped):
    command = ("fit", *IMAGES, "--data.path", pictures, "--output_dir=part", "--last.every_n_train_steps=1")
    cli(*command, "--trainer.max_steps=4")
    cli(*command, "--ckpt_path=best")
    assert_same(weights("part"), unstopped)


def test_text_in_buckets_with_accumulation_and_limited_batches(cli, stories):
    command = (
        *("fit", "--config", "tasks/configs/text_classification.yaml", *TINY_ENCODER, *QUIET, "--data.path", stories),
        *("--data.batch_size=3", "--trainer.accumulate_grad_batches=2", "--trainer.limit_train_batches=8"),
        *("--trainer.max_epochs=2", "--test_after_fit=false"),
    )
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_steps=3")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    assert_same(weights("part"), weights("whole"))


def test_in_float64_with_averaged_weights(cli, pictures):
    options = ("--trainer.precision=64-true", "--ema_decay=0.9")
    command = ("fit", *IMAGES, "--data.path", pictures, *options)
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_steps=3")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    found = weights("part")
    assert_same(found, weights("whole"))
    assert_same(weights("part", "best"), weights("whole", "best"))
    weight = next(tensor for name, tensor in found.items() if name.startswith("network.") and tensor.ndim > 1)
    assert weight.dtype == torch.float64
    assert not torch.equal(weight, weight.float().double())


def test_the_seed_of_the_first_run_goes_on(cli, pictures, unstopped):
    command = ("fit", *IMAGES, "--data.path", pictures, "--output_dir=part")
    cli(*command, "--trainer.max_steps=3")
    cli(*command, "--ckpt_path=last", "--seed_everything=5")
    assert_same(weights("part"), unstopped)


def test_last_without_a_checkpoint_begins_anew(cli, pictures, unstopped):
    result = cli("fit", *IMAGES, "--data.path", pictures, "--output_dir=fresh", "--ckpt_path=last")
    assert "training begins anew" in result.err
    assert_same(weights("fresh"), unstopped)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process(cli, pictures, unstopped, number):
    arguments = ("fit", *IMAGES, "--data.path", pictures, "--output_dir=part")
    slow = (  # a pause in each step, so that the signal comes in the middle
        "import time, lambda_seq.tasks.classification as task; step = task.Classification.training_step\n"
        "task.Classification.training_step = lambda *given: (time.sleep(0.7), step(*given))[1]\n"
        "from lambda_seq.tasks.cli import main; main()"
    )
    process = start(CLI[0], "-c", slow, *arguments, "--last.every_n_train_steps=1")
    last = Path("part/checkpoints/last.ckpt")
    deadline = time.monotonic() + 120
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    try:
        process.communicate(timeout=120)
    finally:
        end(process)
    reached = torch.load(last, weights_only=True)["global_step"]
    assert 0 < reached < 8
    cli(*arguments, "--ckpt_path=last")
    assert_same(weights("part"), unstopped)
