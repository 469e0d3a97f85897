"""Several processes train what a single one does on all their rows together, by options alone."""

import csv
from pathlib import Path

import pytest
import torch
from commands import run
from small_data import QUIET, TINY_ENCODER, TINY_RESNET, image_folder, texts, write_jsonl

STEPS = 10
SGD = ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--model.optimizer.momentum=0.9")
SAME = (
    *("fit", *QUIET, "--trainer.accelerator=cpu", f"--trainer.max_steps={STEPS}", "--trainer.max_epochs=-1"),
    *("--trainer.log_every_n_steps=1", "--test_after_fit=false", "--trainer.num_sanity_val_steps=0"),
)
# Nothing random, which each process would draw for its own rows. Rows of one batch have other lengths on each process.
PLAIN = tuple(f"--model.options.{name}=0" for name in ("dropout", "token_dropout"))
TEXTS = ("--config", "tasks/configs/text_classification.yaml", *TINY_ENCODER, *PLAIN, *SGD, "--data.path=stories")
IMAGES = ("--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *SGD, "--data.path=pictures")
DDP = ("--trainer.strategy=ddp", "--trainer.sync_batchnorm=true")
FSDP2 = ("--trainer.strategy=fsdp2",)


@pytest.fixture(autouse=True)
def data():
    """48 texts of many lengths, or 48 pictures, to train on; few to validate, which no two processes share equally."""
    for split, count in {"train": 48, "validation": 7, "test": 7}.items():
        write_jsonl(Path("stories") / f"{split}.jsonl", texts(count))
    image_folder(Path("pictures"), {"train": 24, "validation": 3, "test": 3})
    (Path("pictures") / "validation" / "up" / "02.png").unlink()


def fit(name: str, *options: str) -> tuple[dict, dict[str, list[float]]]:
    """The last checkpoint of a training, and what it logged, by name."""
    run(*SAME, *options, f"--output_dir={name}")
    logged: dict[str, list[float]] = {}
    with Path(name, "csv", "version_0", "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for metric, value in row.items():
                if value and metric.partition("/")[0] in ("train", "val"):
                    logged.setdefault(metric, []).append(float(value))
    return torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True), logged


def assert_equal(found: tuple, expected: tuple, tolerance: float) -> None:
    """The losses of all steps, the gradients (as momentum adds them up), weights, norms and metrics."""
    (checkpoint, logged), (single, logged_alone) = found, expected
    assert checkpoint["global_step"] == single["global_step"] == STEPS
    close = {"atol": tolerance, "rtol": tolerance}
    torch.testing.assert_close(checkpoint["state_dict"], single["state_dict"], **close)
    momenta, alone = (
        [state["momentum_buffer"] for state in one["optimizer_states"][0]["state"].values()]
        for one in (checkpoint, single)
    )
    assert any(momentum.abs().max() > 1e-3 for momentum in momenta)
    # A momentum is a sum of up to ten gradients, with the rounding of each
    torch.testing.assert_close(momenta, alone, atol=10 * tolerance, rtol=tolerance)
    assert len(logged["train/loss_step"]) == STEPS
    assert logged.keys() == logged_alone.keys()
    for name, values in logged.items():
        # Metrics compute with float32, whatever the network does; but a row counted twice makes more than 1e-2
        exact = tolerance if name == "train/loss_step" else 1e-5
        assert values == pytest.approx(logged_alone[name], abs=exact, rel=exact), name


def process(count: int) -> tuple[str, str]:
    return f"--trainer.devices={count}", f"--data.batch_size={8 // count}"


@pytest.mark.slow(seconds=20)
@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-9), ("32-true", 1e-5)])
def test_two_processes_are_as_one_on_masked_texts(precision, tolerance):
    options = (*TEXTS, f"--trainer.precision={precision}")
    single = fit("single", *options, *process(1))
    assert_equal(fit("ddp", *options, *process(2), *DDP), single, tolerance)
    assert_equal(fit("fsdp2", *options, *process(2), *FSDP2), single, tolerance)


@pytest.mark.slow(seconds=30)
def test_two_processes_share_blocks_and_give_positions_a_rate_of_their_own():
    learning = ("share_blocks=true", "norm=rms", "depth=3", "layer_scale=0.5", "ff=gated", "query_bias=1.0")
    options = (*TEXTS, "--trainer.precision=64-true", "--model.position_lr=0.5", "--model.position_decay=0.01")
    options = (*options, *(f"--model.options.{option}" for option in learning))
    single = fit("single", *options, *process(1))
    groups = single[0]["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.1, 0.1, 0.05]
    whole, logged = fit("whole", *options, *process(2), *FSDP2, "--model.schedule_steps=10")
    assert_equal((whole, logged), single, 1e-9)
    run(*SAME, *options, *process(2), *FSDP2, "--output_dir=part", "--trainer.max_steps=4", "--model.schedule_steps=10")
    resumed, _ = fit("part", *options, *process(2), *FSDP2, "--model.schedule_steps=10", "--ckpt_path=last")
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], atol=0, rtol=0)
    assert [group["initial_lr"] for group in resumed["optimizer_states"][0]["param_groups"]] == [0.1, 0.1, 0.05]


@pytest.mark.slow(seconds=40)
@pytest.mark.parametrize("strategy", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_four_processes_are_as_one_and_go_on_bit_by_bit(strategy):
    """Sums of four depend on their order, which must not depend on where training began."""
    exact = (*TEXTS, "--trainer.precision=64-true")
    options = (*exact, *process(4), *strategy, "--model.schedule_steps=10")
    whole, logged = fit("whole", *options)
    assert_equal((whole, logged), fit("single", *exact, *process(1)), 1e-9)
    run(*SAME, *options, "--output_dir=part", "--trainer.max_steps=4")
    resumed, _ = fit("part", *options, "--ckpt_path=last")
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], atol=0, rtol=0)
    torch.testing.assert_close(resumed["optimizer_states"], whole["optimizer_states"], atol=0, rtol=0)


@pytest.mark.slow
def test_two_processes_are_as_one_on_pictures_with_accumulation():
    """The other kind of batch norm; each step takes two batches of 4, which have their own statistics."""
    options = (*IMAGES, "--trainer.precision=64-true", "--trainer.accumulate_grad_batches=2")
    single = fit("single", *options, "--data.batch_size=4")
    assert_equal(fit("ddp", *options, "--data.batch_size=2", "--trainer.devices=2", *DDP), single, 1e-9)


@pytest.mark.slow(seconds=10)
def test_two_processes_with_spread_weights_read_unequal_numbers_of_windows():
    """A text of 40 windows takes ten calls of the network, the other process's one; neither waits for the other."""
    rows = texts(7)
    rows[3]["text"] = "cat naïve " * 64
    write_jsonl(Path("stories") / "validation.jsonl", rows)
    options = (*TEXTS, "--trainer.precision=64-true", "--data.part=windows", "--data.max_length=16")
    single = fit("single", *options, *process(1))
    assert_equal(fit("fsdp2", *options, *process(2), *FSDP2), single, 1e-9)


@pytest.mark.slow
def test_a_sharded_language_model_writes_samples():
    """One process generates, with all weights; the other must not wait for it, nor it for the other."""
    options = ("--config", "tasks/configs/language_modelling.yaml", *TINY_ENCODER, "--data.path=stories")
    options = ("fit", *options, *SAME[1:], "--data.length=40", *process(2), *FSDP2)
    printed = run(*options, "--output_dir=text", anew=True)
    assert printed.count("sample 1 of 1") == Path("text/samples.txt").read_text().count("--- step") > 0


@pytest.mark.slow
def test_sharded_training_in_bf16_is_stopped_resumed_tested_and_exported_on_one_device():
    options = (*TEXTS, *process(2), *FSDP2, "--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1")
    options = (*options, "--model.schedule_steps=10")
    whole, _ = fit("whole", *options)
    run(*SAME, *options, "--output_dir=part", "--trainer.max_steps=4")
    run(*SAME, *options, "--output_dir=part", "--ckpt_path=last", "--test_after_fit=true")
    resumed = torch.load("part/checkpoints/last.ckpt", weights_only=True)
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], atol=0, rtol=0)
    assert all(type(tensor) is torch.Tensor for tensor in resumed["state_dict"].values())
    assert Path("part/model/model.safetensors").is_file()
    assert "test/loss" in run("test", *TEXTS, *QUIET, "--output_dir=part", "--trainer.accelerator=cpu")
