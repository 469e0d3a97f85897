"""A run that goes on with other options: each is carried out rightly and said, or refused before any work."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from commands import run as run_alone
from small_data import QUIET, TINY_ENCODER, TINY_RESNET, image_folder, texts, write_jsonl

from lambda_seq.tasks.callbacks.resuming import RECORD
from lambda_seq.tasks.checkpointing.options import flattened
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.language_modelling import LanguageModelling

# 24 pictures in batches of 4: 6 steps an epoch
PICTURES = ("fit", "--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.path=pictures")
COMMON = ("--output_dir=run", "--test_after_fit=false", "--export=false", "--overwrite")
IMAGES = (*PICTURES, *COMMON, "--data.batch_size=4", "--trainer.max_epochs=3")
TEXTS = (
    *("fit", "--config", "tasks/configs/text_classification.yaml", *TINY_ENCODER, *QUIET, "--data.path=stories"),
    # 32 texts: 8 steps an epoch, in an order that depends on their lengths
    *(*COMMON, "--data.batch_size=4", "--data.bucket=true", "--trainer.max_epochs=3"),
)
LAST = Path("run/checkpoints/last.ckpt")
GO_ON = "--ckpt_path=last"
SGD = ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--model.optimizer.momentum=0.9")


GROWING = ("--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={0: 1, 1: 2}")


def slow(*given):
    return pytest.param(*given, marks=pytest.mark.slow)


@pytest.fixture
def steps(monkeypatch):
    """What each training step since the list was cleared had: epoch, rows, rate, options of the optimizer."""
    seen: list[dict] = []
    step = Classification.training_step

    def traced(self, batch, batch_index):
        optimizer = self.trainer.optimizers[0]
        moments = [{name: torch.clone(value) for name, value in state.items()} for state in optimizer.state.values()]
        trained = {"epoch": self.trainer.current_epoch, "rows": list(batch["id"]), "moments": moments}
        seen.append(trained | optimizer.param_groups[0])
        return step(self, batch, batch_index)

    monkeypatch.setattr(Classification, "training_step", traced)
    return seen


@pytest.fixture
def run(cli, steps):
    """Runs a command; gives its result, whose steps alone are then in `steps`."""

    def fit(*words, code=0):
        steps.clear()
        return cli(*words, code=code)

    return fit


def rates(steps: list[dict]) -> list[float]:
    return [step["lr"] for step in steps]


def rows(steps: list[dict], epoch: int) -> Counter:
    return Counter(row for step in steps if step["epoch"] == epoch for row in step["rows"])


def said(result) -> list[str]:
    return [line.removeprefix("resuming: ") for line in result.err.splitlines() if line.startswith("resuming: ")]


def best_of(folder: str) -> tuple[int, float]:
    """Step and score of the best checkpoint."""
    saved = torch.load(Path(folder, "checkpoints/best.ckpt"), weights_only=True)
    state = next(state for name, state in saved["callbacks"].items() if name.startswith("BestCheckpoint"))
    return saved["global_step"], float(state["best_model_score"])


def weights(key: str = "state_dict") -> dict[str, torch.Tensor]:
    return torch.load(LAST, weights_only=True)[key]


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    ("before", "stop", "now"),
    [(1, None, 2), slow(3, 6, 2), slow(3, 8, 5)],
    ids=["more", "less", "in the middle"],
)
def test_another_number_of_epochs(run, steps, pictures, before, stop, now):
    """Rates are those that the new course has at this step, from the first step on."""
    run(*IMAGES, f"--trainer.max_epochs={now}")
    whole = rates(steps)
    run(*IMAGES, f"--trainer.max_epochs={before}", *([f"--trainer.max_steps={stop}"] if stop else []))
    trained = list(steps)
    result = run(*IMAGES, f"--trainer.max_epochs={now}", GO_ON)
    assert rates(steps) == pytest.approx(whole[len(trained) :], abs=0)
    assert min(rates(steps)) > 0
    for epoch in range(now):
        assert set(rows([*trained, *steps], epoch).values()) == {1}
        assert len(rows([*trained, *steps], epoch)) == 24
    assert f"the learning rate goes on at step {len(trained)} of {6 * now}" in said(result)[0]


def test_other_epochs_with_the_course_given(run, steps, pictures):
    given = "--model.schedule_steps=30"
    run(*IMAGES, given, "--trainer.max_epochs=1")
    result = run(*IMAGES, given, "--trainer.max_epochs=2", GO_ON)
    resumed = rates(steps)
    run(*IMAGES, given, "--trainer.max_epochs=2")
    assert resumed == rates(steps)[6:]
    assert said(result) == ["trainer.max_epochs was 1, now 2: from here on"]


@pytest.mark.parametrize(
    ("changed", "first", "of"),
    [
        (("--data.batch_size=8", "--ckpt_path=last"), 3, 9),
        slow(("--data.batch_size=8", "--ckpt_path=best"), 3, 9),  # of a validation after the last batch
        slow(("--data.batch_size=2", "--ckpt_path=best"), 12, 36),
        slow(("--data.batch_size=2", "--ckpt_path=last"), 12, 36),
        slow(("--trainer.accumulate_grad_batches=4", "--ckpt_path=last"), 2, 6),
        slow(("--trainer.limit_train_batches=3", "--ckpt_path=last"), 3, 9),
        slow(("--trainer.limit_train_batches=0.5", "--data.batch_size=8", "--ckpt_path=last"), 1, 3),
        slow(("--model.warmup=0.5", "--ckpt_path=last"), 6, 18),
        slow(("--model.final_lr=0.5", "--ckpt_path=last"), 6, 18),
        slow(("--model.schedule_steps=40", "--ckpt_path=last"), 6, 40),
        slow((*GROWING, "--ckpt_path=last"), 6, 12),
    ],
)
def test_other_steps_from_the_end_of_an_epoch(run, steps, pictures, changed, first, of):
    """The course goes on at the part of training that is done."""
    *changed, source = changed
    run(*IMAGES, *changed)
    whole = rates(steps)
    batches = Counter(step["epoch"] for step in steps)
    run(*IMAGES, "--trainer.max_steps=6")
    trained = list(steps)
    result = run(*IMAGES, *changed, source)
    assert f"the learning rate goes on at step {first} of {of}" in said(result)[0]
    for epoch in (1, 2):
        counts = rows([*trained, *steps], epoch)
        assert set(counts.values()) == {1}
        assert Counter(step["epoch"] for step in steps)[epoch] == batches[epoch]
    assert rates(steps) == pytest.approx(whole[batches[0] :], abs=0)


@pytest.mark.parametrize(
    ("stop", "changed", "first"),
    [(3, ("--data.batch_size=6",), 2), slow(2, ("--data.batch_size=8",), 1), slow(3, ("--data.batch_size=2",), 6)],
)
def test_other_batches_in_the_middle_of_an_epoch(run, steps, pictures, stop, changed, first):
    """They begin behind the last row that was trained."""
    run(*IMAGES, *changed)
    whole = rates(steps)
    run(*IMAGES, f"--trainer.max_steps={stop}", "--last.every_n_train_steps=1")
    trained = list(steps)
    result = run(*IMAGES, *changed, GO_ON)
    for epoch in range(3):
        counts = rows([*trained, *steps], epoch)
        assert len(counts) == 24
        assert set(counts.values()) == {1}
    assert rates(steps) == pytest.approx(whole[first:], abs=0)
    assert f"the learning rate goes on at step {first} of" in said(result)[0]
    again = run(*IMAGES, *changed, GO_ON)
    assert "nothing is left to train" in said(again)[0]


@pytest.mark.parametrize(
    ("command", "stop", "changed", "words"),
    [
        (IMAGES, 2, ("--data.batch_size=5",), ("8 rows of it", "data.batch_size was 4", "--trainer.max_steps 6")),
        slow(IMAGES, 3, ("--trainer.accumulate_grad_batches=2",), ("12 rows", "trainer.accumulate_grad_batches was 1")),
        slow(IMAGES, 5, ("--trainer.limit_train_batches=4",), ("20 rows", "trainer.limit_train_batches was not given")),
        slow(IMAGES, 3, ("--data.path=fewer",), ("another order", "training rows were 24, now 18")),
        (TEXTS, 3, ("--data.batch_size=6",), ("another order", "data.batch_size was 4", "--trainer.max_steps 8")),
        slow(TEXTS, 3, ("--data.bucket=false",), ("another order", "data.bucket was True")),
        slow(TEXTS, 3, ("--data.max_length=3",), ("another order", "data.max_length was 64")),
    ],
)
def test_what_would_train_rows_twice_or_never_is_refused(run, steps, pictures, stories, command, stop, changed, words):
    image_folder(Path("fewer"), {"train": 10})
    run(*command, f"--trainer.max_steps={stop}")
    before = LAST.read_bytes()
    result = run(*command, *changed, GO_ON, code=1)
    assert not steps
    assert LAST.read_bytes() == before
    for word in ("in the middle of epoch 1", "twice or never", "begin anew", *words):
        assert word in result.err
    run(*command, GO_ON, f"--trainer.max_steps={6 if command is IMAGES else 8}")  # the remedy
    run(*command, *changed, GO_ON)
    assert {step["epoch"] for step in steps} == {1, 2}


def test_more_rows_from_the_end_of_an_epoch(run, steps, stories):
    run(*TEXTS, "--trainer.max_steps=8")
    write_jsonl(stories / "train.jsonl", texts(40))
    result = run(*TEXTS, GO_ON)
    assert said(result)[-1] == "number of training rows was 32, now 40: the learning rate goes on at step 10 of 30"
    assert len(rows(steps, 1)) == len(rows(steps, 2)) == 40


@pytest.fixture
def undivided(stories):
    """Texts without a split for validation, which so is held out of those for training: 10 steps an epoch."""
    (stories / "validation.jsonl").unlink()
    write_jsonl(stories / "train.jsonl", texts(44))
    return stories


@pytest.mark.parametrize(
    ("before", "changed", "give"),
    [
        ((), ("--data.split_seed=1",), "--data.split_seed 0"),
        slow(
            ("--data.validation_fraction=0",),
            ("--data.validation_fraction=0.1", "--data.split_seed=2"),
            "--data.split_seed 0 --data.validation_fraction 0.0",
        ),
    ],
)
def test_rows_that_were_trained_on_are_not_held_out(run, steps, undivided, before, changed, give):
    run(*TEXTS, *before, "--trainer.max_steps=10")
    result = run(*TEXTS, *before, *changed, GO_ON, code=1)
    assert f"last.ckpt was trained on rows that would be held out now; give {give}, or begin anew" in result.err
    assert not steps


@pytest.mark.slow
def test_other_rows_that_are_held_out_as_the_data_have_changed(run, undivided):
    run(*TEXTS, "--trainer.max_steps=10")
    write_jsonl(undivided / "train.jsonl", texts(54))
    result = run(*TEXTS, GO_ON, "--trainer.max_steps=11")
    assert any(line.startswith("the training rows have changed, and so have those") for line in said(result))


@pytest.mark.slow
def test_text_that_was_trained_on_is_not_held_out(run, stories):
    corpus = ("fit", "--config", "tasks/configs/language_modelling.yaml", *TINY_ENCODER, *QUIET, "--data.path=book")
    corpus = (*corpus, *COMMON, "--data.length=24", "--data.batch_size=4", "--trainer.callbacks=[]")
    corpus = (*corpus, "--trainer.max_epochs=2", "--trainer.val_check_interval=1.0")
    Path("book").mkdir()
    Path("book/book.txt").write_text("".join(f"{row} is a line\n" for row in range(200)))
    run(*corpus, "--trainer.max_epochs=1")
    result = run(*corpus, "--data.validation_fraction=0.2", GO_ON, code=1)
    assert "would be held out now; give --data.validation_fraction 0.05" in result.err


@pytest.mark.parametrize(
    ("optimizer", "changed", "option", "value"),
    [
        ((), "lr=0.01", "initial_lr", 0.01),
        slow((), "weight_decay=0.5", "weight_decay", 0.5),
        slow((), "betas=[0.5, 0.9]", "betas", (0.5, 0.9)),
        slow((), "eps=0.001", "eps", 0.001),
        (SGD, "momentum=0.5", "momentum", 0.5),
        slow(SGD, "nesterov=true", "nesterov", True),
    ],
)
def test_other_options_of_the_optimizer(run, steps, pictures, optimizer, changed, option, value):
    """They hold from the first step on, and the moments are kept."""
    run(*IMAGES, *optimizer, "--trainer.max_steps=8")
    moments = torch.load(LAST, weights_only=True)["optimizer_states"][0]["state"].values()
    result = run(*IMAGES, *optimizer, f"--model.optimizer.{changed}", GO_ON, "--trainer.max_steps=9")
    assert len(steps) == 1
    assert steps[0][option] == value
    name = changed.partition("=")[0]
    assert any(line.startswith(f"model.optimizer.{name} was ") for line in said(result))
    for found, saved in zip(steps[0]["moments"], moments, strict=True):
        assert_same(found, saved)
    groups = torch.load(LAST, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert groups[0][option] == value
    assert groups[1]["weight_decay"] == 0
    resumed = steps[0]["lr"]
    run(*IMAGES, *optimizer, f"--model.optimizer.{changed}", "--trainer.max_steps=9", "--output_dir=other")
    assert resumed == steps[8]["lr"]


POSITIONS = ("--model.position_lr=0.1", "--model.position_decay=0.01")


def groups_of(place=LAST):
    return torch.load(place, weights_only=True)["optimizer_states"][0]["param_groups"]


def test_positions_with_a_rate_of_their_own_go_on(run, steps, pictures):
    run(*IMAGES, *POSITIONS, "--output_dir=whole", "--trainer.max_steps=9", "--trainer.log_every_n_steps=1")
    run(*IMAGES, *POSITIONS, "--trainer.max_steps=5")
    result = run(*IMAGES, *POSITIONS, GO_ON, "--trainer.max_steps=9")
    assert len(said(result)) == 1  # max_steps
    found, whole = groups_of(), groups_of("whole/checkpoints/last.ckpt")
    assert found == whole
    assert [group["initial_lr"] for group in found] == pytest.approx([0.003, 0.003, 0.0003])
    assert found[2]["lr"] == pytest.approx(0.1 * found[0]["lr"])
    assert [group["weight_decay"] for group in found[1:]] == [0.0, 0.01]
    weights = [
        torch.load(f"{place}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for place in ("run", "whole")
    ]
    assert_same(*weights)
    names = {
        name for file in Path("whole/csv").rglob("metrics.csv") for name in file.read_text().split("\n")[0].split(",")
    }
    assert {name for name in names if name.startswith("lr")} == {
        f"lr-AdamW/{one}" for one in ("pg1", "pg2", "positions")
    }


def test_another_rate_of_positions(run, steps, pictures):
    run(*IMAGES, "--model.position_lr=0.1", "--trainer.max_steps=5")
    result = run(*IMAGES, "--model.position_lr=0.5", GO_ON, "--trainer.max_steps=6")
    assert "model.position_lr was 0.1, now 0.5: from here on" in said(result)
    assert not any(line.startswith("model.optimizer") for line in said(result))
    found = groups_of()
    assert found[2]["initial_lr"] == pytest.approx(0.0015)
    assert found[2]["lr"] == pytest.approx(0.5 * found[0]["lr"])
    result = run(*IMAGES, GO_ON, "--trainer.max_steps=7", code=1)
    assert "with a --model.position_lr or --model.position_decay if and only if it had one" in result.err


def test_another_optimizer_is_refused(run, steps, pictures):
    run(*IMAGES, "--trainer.max_steps=3")
    result = run(*IMAGES, *SGD, GO_ON, code=1)
    assert not steps
    for word in ("torch.optim.adamw.AdamW", "torch.optim.sgd.SGD cannot", "--model.optimizer", "--model.init_from"):
        assert word in result.err
    assert "Traceback" not in result.err


def test_nothing_left_to_train(run, steps, pictures):
    run(*IMAGES)
    result = run(*IMAGES, GO_ON)
    assert not steps
    assert said(result) == [
        "nothing is left to train, 3 epochs (18 steps) are done; to go on, give a greater --trainer.max_epochs"
    ]
    result = run(*IMAGES, GO_ON, "--trainer.max_epochs=2", code=1)
    assert "has trained 3 epochs; give --trainer.max_epochs 3 or more" in result.err
    result = run(*IMAGES, GO_ON, "--trainer.max_steps=4", code=1)
    assert "has trained 18 steps; give --trainer.max_steps 18 or more" in result.err
    result = run(*IMAGES, GO_ON, "--trainer.fast_dev_run=true", code=1)
    assert "leave out --ckpt_path" in result.err


def test_fewer_epochs_than_begun_are_refused(run, steps, pictures):
    run(*IMAGES, "--trainer.max_steps=8")
    result = run(*IMAGES, GO_ON, "--trainer.max_epochs=1", code=1)
    assert "has trained 1 epochs and 2 batches of the next; give --trainer.max_epochs 2 or more" in result.err


def test_the_best_goes_on_where_the_folder_moves_to(run, pictures):
    greatest = (*IMAGES, "--best.monitor=val/loss", "--best.mode=max", "--model.optimizer.lr=0.01")
    run(*greatest, "--trainer.max_steps=12")
    shutil.copytree("run", "elsewhere")
    run(*greatest)
    shutil.move("elsewhere", "moved")
    result = run(*greatest, "--output_dir=moved", GO_ON)
    assert len(said(result)) == 1  # max_steps
    best = [best_of(folder) for folder in ("run", "moved")]
    assert best[0] == best[1]
    assert best[0][0] < 18


def test_a_run_that_goes_on_in_another_folder_keeps_its_best_there(run, pictures):
    run(*IMAGES, "--trainer.max_epochs=1")
    changed = (f"--ckpt_path={LAST}", "--output_dir=other", "--test_after_fit=true", "--export=true")
    result = run(*IMAGES, "--trainer.max_epochs=1", *changed)
    assert "the best checkpoint so far stays at" in said(result)[0]
    assert "nothing is left to train" in said(result)[1]
    assert Path("other/model/model.safetensors").is_file()
    run(*IMAGES, "--trainer.max_epochs=2", *changed)
    assert best_of("other")[0] == 12


def test_what_is_tested_in_another_folder_does_not_go_on(run, pictures):
    run(*IMAGES, "--trainer.max_epochs=1")
    elsewhere = (*PICTURES[1:], f"--ckpt_path={LAST}", "--output_dir=other")
    for command in ("validate", "test", "predict"):
        assert said(run(command, *elsewhere)) == [], command
    assert Path("other/predictions.csv").is_file()


def test_another_monitor_is_said(run, pictures):
    run(*IMAGES, "--trainer.max_epochs=1")
    result = run(*IMAGES, "--trainer.max_epochs=2", "--best.monitor=val/loss", GO_ON)
    assert "best.monitor was val/accuracy, now val/loss: the best of from here on is kept" in said(result)


def test_a_course_that_is_over_is_said(run, steps, pictures):
    run(*IMAGES, "--trainer.max_steps=6")
    result = run(*IMAGES, "--model.schedule_steps=4", "--model.final_lr=0.1", "--trainer.max_steps=7", GO_ON)
    assert "the learning rate has ended its course of 4 steps and stays at 0.1 of the greatest rate" in said(result)[0]
    assert rates(steps) == pytest.approx([0.1 * steps[0]["initial_lr"]])


def test_the_same_options_say_nothing_and_other_folders_neither(run, steps, pictures):
    run(*IMAGES, "--trainer.max_steps=8", "--trainer.max_epochs=2")
    result = run(*IMAGES, "--trainer.max_steps=8", "--trainer.max_epochs=2", GO_ON, "--curves.path=c.png")
    assert [line.partition(",")[0] for line in said(result)] == ["nothing is left to train"]
    result = run(*IMAGES, "--trainer.max_steps=8", GO_ON, "--trainer.max_epochs=2", "--data.num_workers=1")
    assert len(said(result)) == 1


def test_options_that_change_no_course_are_carried_out_and_said(run, steps, pictures):
    run(*IMAGES, "--trainer.max_steps=8")
    changed = {
        "model.options.dropout": "0.5",
        "model.label_smoothing": "0.2",
        "data.flip": "true",
        "trainer.gradient_clip_val": "0.001",
        "trainer.precision": "bf16-mixed",
        "trainer.log_every_n_steps": "1",
        "trainer.val_check_interval": "2",
    }
    result = run(*IMAGES, *(f"--{name}={value}" for name, value in changed.items()), GO_ON)
    lines = said(result)
    for name in changed:
        assert [line for line in lines if line.startswith(f"{name} was ") and line.endswith(": from here on")], name
    assert len(lines) == len(changed) + 1  # max_steps, too
    assert len(steps) == 10
    assert torch.load(LAST, weights_only=True)["hyper_parameters"]["label_smoothing"] == 0.2


@pytest.mark.slow
def test_another_seed_is_said(run, pictures):
    run(*IMAGES)
    whole = weights()
    run(*IMAGES, "--trainer.max_steps=8")
    for stop in (12, 18):  # again, as the run keeps its first one
        result = run(*IMAGES, GO_ON, "--seed_everything=5", f"--trainer.max_steps={stop}")
        assert said(result)[0] == (
            "seed_everything was 0, now 5: the run keeps 0, on which its order of rows and random numbers depend"
        )
    assert_same(weights(), whole)


@pytest.mark.slow
def test_an_average_is_begun_given_up_and_changed(run, pictures):
    """What is trained stays the same, whether it is averaged or not."""
    run(*IMAGES)
    whole = weights()
    run(*IMAGES, "--trainer.max_steps=8", "--ema_decay=0.9")
    result = run(*IMAGES, GO_ON)
    assert "ema_decay was 0.9, now not given: training goes on with the weights that it trains" in said(result)[-1]
    assert_same(weights(), whole)
    run(*IMAGES, "--trainer.max_steps=8")
    result = run(*IMAGES, GO_ON, "--ema_decay=0.9", "--trainer.max_steps=12")
    assert said(result)[-1] == "ema_decay was not given, now 0.9: the average begins with the weights of now"
    result = run(*IMAGES, GO_ON, "--ema_decay=0.5")
    assert said(result)[-1] == "ema_decay was 0.9, now 0.5: from here on"
    assert_same(weights("current_model_state"), whole)
    moved = [name for name, tensor in weights().items() if not torch.equal(tensor, whole[name])]
    assert moved


@pytest.mark.parametrize("stop", [slow(6), 8])
def test_a_checkpoint_of_an_older_version(run, steps, pictures, stop):
    run(*IMAGES)
    whole = weights()
    run(*IMAGES, f"--trainer.max_steps={stop}")
    checkpoint = torch.load(LAST, weights_only=True)
    del checkpoint[RECORD]
    torch.save(checkpoint, LAST)
    result = run(*IMAGES, GO_ON)
    assert "is of an older version" in said(result)[0]
    assert len(said(result)) == 1
    assert_same(weights(), whole)


@pytest.mark.parametrize(
    "missing", [("optimizer_states", "lr_schedulers", "callbacks"), ("optimizer_states", "lr_schedulers", "loops")]
)
def test_weights_alone_are_refused(run, pictures, missing):
    run(*IMAGES, "--trainer.max_steps=2")
    checkpoint = torch.load(LAST, weights_only=True)
    for name in missing:
        del checkpoint[name]
    torch.save(checkpoint, LAST)
    result = run(*IMAGES, GO_ON, code=1)
    assert "has weights alone" in result.err
    assert "--model.init_from" in result.err


@pytest.mark.slow
def test_a_stream_goes_on_with_more_steps_and_other_batches(cli, monkeypatch):
    """It has no epochs: the course goes on at its step, over the new number of them."""
    seen: list[tuple[float, list]] = []
    step = LanguageModelling.training_step

    def traced(self, batch, batch_index):
        seen.append((self.trainer.optimizers[0].param_groups[0]["lr"], batch["x"].tolist()))
        return step(self, batch, batch_index)

    monkeypatch.setattr(LanguageModelling, "training_step", traced)
    write_jsonl(Path("train.jsonl"), [{"text": f"<{number}>" * 20} for number in range(60)])
    command = (
        *("fit", "--config", "tasks/configs/language_modelling.yaml", *TINY_ENCODER, *QUIET, *COMMON),
        *("--data.path=train.jsonl", "--data.streaming=true", "--data.validation_fraction=0", "--data.length=16"),
        *("--data.shuffle_buffer=10", "--trainer.max_epochs=-1", "--trainer.val_check_interval=1.0"),
    )
    cli(*command, "--data.batch_size=2", "--trainer.max_steps=12", "--output_dir=whole")
    whole = list(seen)
    seen.clear()
    cli(*command, "--data.batch_size=2", "--trainer.max_steps=6")
    result = cli(*command, "--data.batch_size=4", "--trainer.max_steps=12", GO_ON)
    assert "trainer.max_steps was 6, now 12: the learning rate goes on at step 6 of 12" in said(result)
    assert [rate for rate, _ in seen[6:]] == [rate for rate, _ in whole[6:]]
    assert [row for _, batch in seen for row in batch][:24] == [row for _, batch in whole for row in batch]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_another_number_of_processes_with_the_same_rows_in_a_batch(stories, strategy):
    """In the middle of an epoch of sorted rows: two processes, then one, are as one throughout."""
    plain = [f"--model.options.{name}=0" for name in ("dropout", "token_dropout")]
    command = (*TEXTS, *plain, *SGD, "--trainer.accelerator=cpu", "--trainer.precision=64-true")
    two = ("--trainer.devices=2", "--data.batch_size=2", f"--trainer.strategy={strategy}")
    run_alone(*command, "--output_dir=whole")
    run_alone(*command, *two, "--trainer.sync_batchnorm=true", "--trainer.max_steps=5")
    printed = run_alone(*command, GO_ON)
    assert "resuming: data.batch_size was 2, now 4" in printed
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(weights(), whole, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_spread_weights_go_on_with_other_options(stories):
    """FSDP2 restores at another time, when data and optimizer are made."""
    command = (*TEXTS, "--trainer.accelerator=cpu", "--trainer.devices=2", "--data.batch_size=2")
    command = (*command, "--trainer.strategy=fsdp2")
    run_alone(*command, "--trainer.max_steps=5")
    order = torch.load(LAST, weights_only=True)[RECORD]["order"]
    changed = ("--model.optimizer.lr=0.001", "--seed_everything=3")
    printed = run_alone(*command, *changed, "--trainer.max_steps=6", GO_ON)
    assert "model.optimizer.lr was 0.002, now 0.001" in printed
    assert "the run keeps 0" in printed
    found = torch.load(LAST, weights_only=True)
    assert {group["initial_lr"] for group in found["optimizer_states"][0]["param_groups"]} == {0.001}
    assert found[RECORD]["order"] == order
    assert "torch.optim.sgd.SGD cannot go on" in run_alone(*command, *SGD, GO_ON, code=1)


@pytest.mark.slow
def test_weights_are_not_spread_in_the_middle_of_a_training(run, stories):
    run(*TEXTS, "--trainer.max_steps=5")
    printed = run_alone(
        *(*TEXTS, "--trainer.accelerator=cpu", "--trainer.devices=2", "--data.batch_size=2", GO_ON),
        "--trainer.strategy=fsdp2",
        code=1,
    )
    assert "go on with the strategy that it was trained with" in printed


def test_names_of_options():
    model = {"class_path": "Classification", "init_args": {"options": {"dim": 8}, "facts": None}}
    given = {"model": model, "trainer": {"callbacks": [{"class_path": "A", "init_args": {"x": (1, Path("p"))}}]}}
    assert flattened(given) == {
        "model.class_path": "Classification",
        "model.options.dim": 8,
        "trainer.callbacks": [{"class_path": "A", "init_args": {"x": [1, "p"]}}],
    }
