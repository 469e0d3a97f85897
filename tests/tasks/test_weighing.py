"""One figure and one gradient of the same rows, whatever the batch size, the accumulation and the processes."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import run
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from small_data import QUIET, TINY_ENCODER, texts, write_jsonl
from torch.utils.data import DataLoader, IterableDataset

from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data.language.packs import EvaluationRows, pad_rows
from lambda_seq.tasks.data.language.streams import Block
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.language_modelling import LanguageModelling
from lambda_seq.tasks.pretraining import MaskedPretraining
from lambda_seq.tasks.weighing import Window, steps_with

ENCODER = {"dim": 8, "depth": 1, "heads": 2, "scope": 3, "block_norm": "layer", "norm": "layer"}
LABELS = {"labels": ["a", "b", "c"]}
ROWS = 14

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),  # Lightning's own use of torch
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Total length of"),
]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


def encoder(kind, task=MaskedPretraining, **more):
    options = {"num_classes": 3} | {
        "tokens": {"vocab_size": 20},
        "features": {"in_channels": 3},
        "waveform": {"in_channels": 1},
    }[kind]
    strides = {"strides": [2, 2]} if kind == "waveform" else {}
    facts = LABELS | {"input": kind, "options": options}
    options = ENCODER | {"stem": kind} | strides
    return task("lambda_encoder", options, facts=facts, optimizer=sgd, warmup=0, final_lr=1, **more)


def language_model():
    facts = {"input": "tokens", "options": {"vocab_size": 257, "max_length": 16}, "tokens": Tokens().facts}
    options = {"dim": 8, "depth": 1, "heads": 2, "dim_key": 3, "scope": 5}
    return LanguageModelling("lambda_lm", options, facts=facts, optimizer=sgd, warmup=0, final_lr=1)


TASKS = {
    "classification": lambda: encoder("tokens", Classification, label_smoothing=0.1),
    "language modelling": language_model,
    "masked tokens": lambda: encoder("tokens"),
    "masked features": lambda: encoder("features"),
    "masked waveforms": lambda: encoder("waveform"),
}


def rows(name, count=ROWS):
    """Rows of 3 to 40 positions."""
    generator = torch.Generator().manual_seed(1)
    if name == "language modelling":
        block = Block([f"{'ab' * (1 + 5 * number % 9)}{number}" for number in range(3 * count)], Tokens())
        found = EvaluationRows(block.documents(0), 16, 16)
        return [found[number] for number in range(count)]
    lengths = [3 + 11 * row % 38 for row in range(count)]
    made = {
        "masked features": lambda size: torch.randn(size, 3, generator=generator),
        "masked waveforms": lambda size: torch.randn(size, generator=generator),
    }.get(name, lambda size: torch.randint(1, 20, (size,), generator=generator))
    return [{"x": made(length), "label": row % 3, "id": str(row)} for row, length in enumerate(lengths)]


def together(items):
    """A batch of rows, padded to the longest of them."""
    if "target" in items[0]:
        return pad_rows(items, mark=0)
    x = torch.nn.utils.rnn.pad_sequence([item["x"] for item in items], batch_first=True)
    mask = torch.arange(x.shape[1]) < torch.tensor([len(item["x"]) for item in items])[:, None]
    return {"x": x, "mask": mask, "label": torch.tensor([item["label"] for item in items])}


def batches(found, size, window=None):
    """Batches of `size` rows, none of which has rows of two windows."""
    window = window or len(found)
    parts = [found[begin : begin + window] for begin in range(0, len(found), window)]
    return [together(part[begin : begin + size]) for part in parts for begin in range(0, len(part), size)]


class Stream(IterableDataset):
    """Batches whose number nobody knows."""

    def __init__(self, found):
        self.found = found

    def __iter__(self):
        return iter(self.found)


def fit(name, size, accumulated, *, stream=False, tmp_path, **options):
    """A task after an epoch whose steps take 6 rows, the last one 2; and its figures of training and validation."""
    torch.manual_seed(0)
    task, found = TASKS[name](), rows(name)
    torch.manual_seed(0)
    given = batches(found, size, window=6)
    loader = DataLoader(Stream(given) if stream else given, batch_size=None)
    options = {"precision": "64-true", "gradient_clip_val": 0.05, "accelerator": "cpu"} | options
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        **quiet,
        **{key: value for key, value in options.items() if value is not None},
        logger=False,
        max_epochs=1,
        max_steps=3 if stream else -1,
        accumulate_grad_batches=accumulated,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, loader, DataLoader(batches(found, size), batch_size=None))
    assert trainer.global_step == 3
    figures = {key: value.item() for key, value in trainer.callback_metrics.items()}
    return torch.cat([parameter.detach().flatten() for parameter in task.network.parameters()]), figures


@pytest.mark.parametrize("name", list(TASKS))
def test_batch_size_and_accumulation_change_nothing(name, tmp_path):
    """Neither weights after clipped steps, the last of which is shorter, nor a figure of training or validation."""
    weights, figures = fit(name, 6, 1, tmp_path=tmp_path)
    assert {"train/loss_step", "train/loss_epoch", "train/loss", "val/loss"} < figures.keys()
    for size, accumulated in ((2, 3), (1, 6), (4, 2)):
        again, others = fit(name, size, accumulated, tmp_path=tmp_path)
        torch.testing.assert_close(again, weights, rtol=1e-9, atol=1e-11)
        assert others == pytest.approx(figures, rel=1e-6 if "masked" in name else 1e-7)


@pytest.mark.parametrize("name", list(TASKS))
def test_one_figure_of_evaluation_for_all_batch_sizes(name, tmp_path):
    torch.manual_seed(0)
    task, found = TASKS[name](), rows(name, 30)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "logger": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, precision="64-true", default_root_dir=tmp_path)
    for evaluate in (trainer.validate, trainer.test):
        loaders = [DataLoader(batches(found, size), batch_size=None) for size in (1, 7, 64)]
        figures = [evaluate(task, loader, verbose=False)[0] for loader in loaders]
        assert len(figures[0]) >= 2
        assert figures == [pytest.approx(figures[0], rel=1e-7)] * 3


def test_a_stream_whose_end_is_not_known(tmp_path):
    weights, _ = fit("masked tokens", 6, 1, tmp_path=tmp_path)
    again, _ = fit("masked tokens", 2, 3, tmp_path=tmp_path, stream=True)
    torch.testing.assert_close(again, weights, rtol=1e-9, atol=1e-11)


def test_scaled_losses_of_mixed_precision(tmp_path):
    """Gradients are weighed after the scaler has unscaled them."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    plain, scaled = (
        fit("masked tokens", size, accumulated, tmp_path=tmp_path, precision=None, plugins=[plugin])[0]
        for size, accumulated in ((6, 1), (2, 3))
    )
    single, _ = fit("masked tokens", 6, 1, tmp_path=tmp_path, precision="32-true")
    assert (scaled - plain).abs().max() < 2e-3
    assert (plain - single).abs().max() < 2e-3


def test_figures_in_half_precision_count_all_bytes(tmp_path):
    """In bf16 a batch of 1,001 bytes would have 1,000."""
    _, exact = fit("language modelling", 6, 1, tmp_path=tmp_path, precision="32-true")
    _, half = fit("language modelling", 6, 1, tmp_path=tmp_path, precision="bf16-true")
    for figures in (exact, half):
        for stage in ("train", "val"):
            loss = figures["train/loss_epoch" if stage == "train" else "val/loss"]
            figures[stage] = figures[f"{stage}/bits_per_byte"] / loss
    assert half["train"] == pytest.approx(exact["train"], rel=1e-12)
    assert half["val"] == pytest.approx(exact["val"], rel=1e-12)


class Losses(Callback):
    """Losses that go into the backward pass."""

    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found.append(float(pl_module.window.rest))


def test_batches_of_one_size_keep_their_gradients(tmp_path):
    """Where nothing differs, nothing is multiplied by anything but 1, the shorter last step included."""
    losses = Losses()
    fit("classification", 2, 3, tmp_path=tmp_path, callbacks=[losses])
    assert losses.found == [1.0, 1.0, 1.0]


def test_what_a_window_makes_of_counts():
    """Gradients n/k, weighed, are those of the mean over all: two processes, three batches, one without a count."""
    counts, gradients = torch.tensor([[0, 5], [12, 3], [7, 0]]), torch.tensor([[0.0, 2.0], [-1.0, 4.0], [0.5, 0.0]])
    windows, added = [Window(), Window()], torch.zeros(2, dtype=torch.float64)
    for process, window in enumerate(windows):
        window.begin(accumulated=4, expected=3)
        for batch, count in enumerate(counts):
            sums = torch.stack([(count * gradients[batch]).double().mean(), count.double().mean()])
            window.add(gradients[batch, process], count[process], lambda _, sums=sums: sums)
            added[process] += window.weight * gradients[batch, process] / 4
    expected = (counts * gradients).sum() / counts.sum()
    assert float(added.mean() * windows[0].rest) == pytest.approx(float(expected))
    assert float(windows[1].mean) == pytest.approx(float(expected))


def test_a_step_that_counts_nothing():
    window = Window()
    window.begin(accumulated=2, expected=2)
    for _ in range(2):
        window.add(torch.tensor(0.0), 0, lambda sums: sums)
        assert window.weight == 0
    assert (window.rest, window.mean) == (0, 0)


def test_a_task_that_does_not_say_what_its_loss_is_a_mean_of(tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "weigh", lambda *_: None)
    with pytest.raises(
        TypeError, match=r"Classification.training_step returns a loss without a weight: call self.weigh"
    ):
        fit("classification", 6, 1, tmp_path=tmp_path)


@pytest.mark.parametrize(("batches", "ends"), [(5, [1, 3, 4]), (float("inf"), [1, 3, 5])])
def test_batches_that_a_step_follows(batches, ends):
    trainer = SimpleNamespace(accumulate_grad_batches=2, num_training_batches=batches, is_last_batch=False)
    assert [index for index in range(min(batches, 6)) if steps_with(trainer, index)] == ends
    trainer.is_last_batch = True
    assert steps_with(trainer, 2)


# On two processes, by the command line
EXACT = (
    *("--trainer.precision=64-true", "--trainer.accelerator=cpu", "--trainer.gradient_clip_val=0.05", *QUIET),
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=9", "--trainer.accumulate_grad_batches=4"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.log_every_n_steps=1", "--test_after_fit=false"),
    *("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.5", "--model.options.dropout=0"),
)
ALIKE = (*TINY_ENCODER, "--model.options.block_norm=layer", "--model.options.norm=rms")
TEXTS = ("--config", "tasks/configs/text_classification.yaml", *ALIKE, "--data.path=stories", "--data.bucket=false")
TEXTS = (*TEXTS, "--model.options.token_dropout=0")
CORPUS = ("--config", "tasks/configs/language_modelling.yaml", *TINY_ENCODER, "--data.path=stories", "--data.length=24")
COMMANDS = {
    "classification": TEXTS,
    "language modelling": (*CORPUS, "--trainer.callbacks=[]", "--trainer.val_check_interval=1.0"),
    "masked tokens": (TEXTS[0], TEXTS[1], "--model=MaskedPretraining", *TEXTS[2:]),
    "masked features": (*("--config", "tasks/configs/digits_sequence.yaml", "--model=MaskedPretraining"), *ALIKE),
}


@pytest.fixture
def stories():
    """Texts of many lengths, an odd number of them to validate."""
    for split, count in {"train": 42, "validation": 9, "test": 3}.items():
        write_jsonl(Path("stories") / f"{split}.jsonl", texts(count))


def logged(name):
    """The figures of a training of one epoch."""
    with Path(name, "csv", "version_0", "metrics.csv").open(newline="") as file:
        found = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return {key: value for row in found for key, value in row.items() if key.startswith(("train/", "val/"))}


def trained(name):
    checkpoint = torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3  # of four, four and one batches
    return checkpoint["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(COMMANDS))
def test_two_processes_change_nothing(cli, stories, name):
    command = ("fit", *COMMANDS[name], *EXACT)
    cli(*command, "--data.batch_size=2", "--output_dir=one")
    figures = logged("one")
    assert {"train/loss_step", "train/loss_epoch", "val/loss"} < figures.keys()
    for strategy in ("ddp", "fsdp2"):
        two = ("--data.batch_size=1", "--trainer.devices=2", f"--trainer.strategy={strategy}")
        run(*command, *two, f"--output_dir={strategy}")
        torch.testing.assert_close(trained(strategy), trained("one"), rtol=1e-9, atol=1e-11)
        assert logged(strategy) == pytest.approx(figures, rel=1e-6), strategy
