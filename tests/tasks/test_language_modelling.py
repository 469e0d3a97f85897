"""The task: losses, what they count, whole commands, and resuming."""

import json
import math
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from small_data import QUIET, write_jsonl
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lambda_seq.functional import Packing
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data.batches import Packed
from lambda_seq.tasks.data.language.packs import IGNORED, EvaluationRows, pad_rows
from lambda_seq.tasks.data.language.streams import Block
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.language_modelling import DocumentTable, LanguageModelling, Scores

FACTS = {"input": "tokens", "options": {"vocab_size": 257, "max_length": 16}, "tokens": Tokens().facts}
SMALL = {"dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "scope": 5}
TINY = tuple(f"--model.options.{name}={value}" for name, value in SMALL.items())
CONFIG = ("--config", "tasks/configs/language_modelling.yaml", "--data.length=16", "--data.batch_size=3", *TINY, *QUIET)
RUN = (*CONFIG, "--trainer.max_epochs=2", "--trainer.val_check_interval=1.0", "--trainer.log_every_n_steps=1")
TEXTS = ["the cat sat on the mat", "", "a", "naïve\n", "dogs " * 20]


def batch_of(texts, length=16, stride=16):
    block = Block(texts, Tokens())
    rows = EvaluationRows(block.documents(0), length, stride)
    return pad_rows([rows[number] for number in range(len(rows))], mark=0)


def task(**options):
    torch.manual_seed(0)
    return LanguageModelling("lambda_lm", SMALL | options, facts=FACTS).eval()


def test_losses_are_those_of_each_document_alone():
    model = task()
    table, expected = DocumentTable(), {}
    for number, text in enumerate(TEXTS):
        if text:
            ids = torch.tensor([0, *(byte + 1 for byte in text.encode()), 0])
            logits = model.network(ids[None, :-1])[0]
            expected[str(number)] = F.cross_entropy(logits, ids[1:]).item(), len(ids) - 1, len(text.encode())
    found = table.rows(model.predict_step(batch_of(TEXTS, length=200, stride=200), 0)) + table.rest()
    assert [row[0] for row in found] == list(expected)
    for name, tokens, size, loss, bits in found:
        assert (loss, tokens, size) == (pytest.approx(expected[name][0], rel=1e-5), *expected[name][1:])
        assert bits == pytest.approx(expected[name][0] * tokens / math.log(2) / size, rel=1e-5)


def test_a_document_of_many_windows_is_one_row():
    model, table, rows = task(), DocumentTable(), []
    whole = batch_of(TEXTS, length=16, stride=8)
    for place in range(0, len(whole["x"]), 2):
        part = {name: whole[name][place : place + 2] for name in ("x", "target", "mask", "bytes", "id")}
        part["documents"] = Packed(Packing.of(whole["documents"].packing.number[place : place + 2], part["mask"]))
        rows += table.rows(model.predict_step(part, 0))
    rows += table.rest()
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (str(number), len(text.encode()) + 1, len(text.encode())) for number, text in enumerate(TEXTS) if text
    ]
    nats = sum(row[1] * row[3] for row in rows)
    assert nats == pytest.approx(model.losses(whole).sum().item(), rel=1e-5)


def test_no_document_learns_from_another():
    model = task(scope=None, max_length=64)
    batch = batch_of(["one two", "three four", "five"], length=64)
    documents = batch["documents"].packing.number
    assert documents.max() == 2
    before = model.losses(batch)
    batch["x"][0, documents[0] == 1] = 5
    after = model.losses(batch)
    others = documents != 1
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before, after)


class Waiting(TorchDispatchMode):
    """Counts what a GPU would have to be waited for: values and sizes that Python asks for."""

    NAMES = ("_local_scalar_dense", "nonzero", "unique_consecutive", "_unique2", "masked_select", "bincount")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += any(str(func).startswith(f"aten.{name}.") for name in self.NAMES)
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_nothing_as_its_packing_comes_with_the_batch():
    model, batch = task(), batch_of(TEXTS, length=16, stride=8)
    with Waiting() as packed:
        model.losses(batch).sum().backward()
    assert packed.count == 0
    with Waiting() as given_ids:
        model.network(batch["x"], batch["mask"], batch["documents"].packing.number)
    assert given_ids.count > 0


def test_scores_are_over_all_predictions():
    scores, counts = Scores(), [(30.0, 10, 8.0), (100.0, 70, 70.0), (0.5, 1, 0.0), (0.0, 0, 0.0)]
    for nats, tokens, size in counts:
        scores.update(torch.tensor(nats), torch.tensor(tokens), torch.tensor(size))
    assert scores.loss.compute() == pytest.approx(130.5 / 81)
    assert scores.perplexity.compute() == pytest.approx(math.exp(130.5 / 81))
    assert scores.bits_per_byte.compute() == pytest.approx(130.5 / 78 / math.log(2))


def test_what_does_not_count_has_no_gradient():
    model = task()
    batch = batch_of(["abcdefghij" * 4], length=16, stride=4)
    batch["target"][0] = IGNORED
    model.log = lambda *given, **options: None
    loss = model.training_step(batch, 0)
    count = (batch["target"] != IGNORED).sum()
    assert loss.item() == pytest.approx((model.losses(batch).sum() / count).item())
    assert not model.losses(batch)[0].any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"network": "lambda_encoder", "options": {}}, "is a LambdaEncoder, which predicts no next token"),
        ({"options": {"vocab_size": 100}}, "options.vocab_size=100: the data have 257 tokens; leave it out"),
        ({"facts": FACTS | {"labels": ["a"]}}, "the data are for classification"),
        ({"warmup": 3.0}, "warmup=3.0"),
    ],
)
def test_bad_options(given, message):
    with pytest.raises(ValueError, match=message):
        LanguageModelling(**({"network": "lambda_lm", "facts": FACTS} | given))


def test_data_without_labels_have_no_classes():
    with pytest.raises(ValueError, match=r"the data have no labels to tell apart; .*LanguageModelling"):
        Classification("lambda_encoder", {}, facts=FACTS)


@pytest.fixture
def novels(tmp_path):
    """A folder of .txt files with all three splits, with an empty file, one of one byte and one that is no text."""
    sizes = {"train/a": b"one two three four. " * 30, "train/b": b"", "train/c": b"x", "train/d": b"\xff\xfe\x00" * 9}
    sizes |= {"validation/e": b"three one four two. " * 3, "test/f": b"", "test/g": b"y", "test/h": b"one " * 9}
    for name, text in sizes.items():
        file = tmp_path / "novels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return tmp_path / "novels"


def weights(folder):
    checkpoint = torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)
    moments = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, state in checkpoint["optimizer_states"][0]["state"].items()
        for key, value in state.items()
    }
    return checkpoint["state_dict"] | moments, checkpoint["global_step"]


def assert_same(found, expected):
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for name, tensor in expected[0].items():
        assert torch.equal(found[0][name], tensor), name


def test_fit_validate_test_predict(cli, novels):
    fitted = cli("fit", *RUN, "--data.path", novels)
    output = Path("outputs/language_modelling")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["test/perplexity"] == pytest.approx(math.exp(summary["test/loss"]), rel=1e-4)
    assert summary["test/bits_per_byte"] == pytest.approx(summary["test/loss"] / math.log(2) * 39 / 37, rel=1e-4)
    assert "sample 1 of 1" in fitted.out
    assert (output / "samples.txt").read_text().count("--- step") == 2
    assert "val/bits_per_byte" in cli("validate", *CONFIG, "--data.path", novels).out
    cli("predict", *CONFIG, "--data.path", novels, "--predictions.path", "p.parquet")
    rows = pq.read_table("p.parquet").to_pylist()
    assert [(Path(row["id"]).name, row["tokens"], row["bytes"]) for row in rows] == [("g.txt", 2, 1), ("h.txt", 37, 36)]
    nats = sum(row["tokens"] * row["loss"] for row in rows)
    assert nats / 39 == pytest.approx(summary["test/loss"], rel=1e-4)
    (novels / "more.txt").write_text("one two")
    cli(
        *("predict", *CONFIG, "--data.path", novels, "--data.predict_path", novels / "more.txt"),
        *("--predictions.path", "p.jsonl", "--data.stride=3"),
    )
    (row,) = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert row["tokens"] == 8
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * 8 / math.log(2) / 7, rel=1e-4)


@pytest.mark.parametrize("step", [4, *(pytest.param(step, marks=pytest.mark.slow) for step in (13, 20))])
def test_resumed_in_the_middle_of_an_epoch_is_never_stopped(cli, novels, step):
    command = ("fit", *RUN, "--data.path", novels, "--test_after_fit=false", "--model.options.dropout=0.2")
    cli(*command, "--output_dir=whole")
    expected = weights("whole")
    assert expected[1] == 26  # 13 steps in each of two epochs
    cli(*command, "--output_dir=part", f"--trainer.max_steps={step}")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    assert_same(weights("part"), expected)


@pytest.mark.parametrize(
    ("workers", "step"), [(0, 18), *(pytest.param(2, step, marks=pytest.mark.slow) for step in (5, 18, 29))]
)
def test_a_stream_resumed_is_never_stopped(cli, tmp_path, workers, step):
    for shard in range(2):
        texts = [f"document {number} of shard {shard}. " * (1 + number) for number in range(7)]
        datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "data" / f"train-{shard}.parquet")
    datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "data" / "validation.parquet")
    command = (
        *("fit", *CONFIG, "--data.path", tmp_path / "data", "--data.streaming=true", "--data.shuffle_buffer=3"),
        *(f"--data.num_workers={workers}", "--trainer.max_epochs=-1", "--model.schedule_steps=40"),
        *("--trainer.val_check_interval=9", "--trainer.check_val_every_n_epoch=null", "--test_after_fit=false"),
    )
    cli(*command, "--output_dir=whole", "--trainer.max_steps=40")
    expected = weights("whole")
    assert expected[1] == 40
    cli(*command, "--output_dir=part", f"--trainer.max_steps={step}")
    cli(*command, "--output_dir=part", "--ckpt_path=last", "--trainer.max_steps=40")
    assert_same(weights("part"), expected)


def test_a_stream_in_epochs(cli, tmp_path):
    texts = [f"document {number}. " * (1 + number) for number in range(9)]
    datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "data" / "train.parquet")
    command = (
        *("fit", *CONFIG, "--data.path", tmp_path / "data", "--data.streaming=true", "--data.validation_fraction=0"),
        *("--trainer.val_check_interval=1.0", "--trainer.limit_train_batches=5", "--trainer.max_epochs=4"),
        *("--trainer.callbacks=[]", "--test_after_fit=false"),
    )
    cli(*command, "--output_dir=whole")
    expected = weights("whole")
    assert expected[1] == 20
    for step in (5, 12):
        cli(*command, f"--output_dir=part{step}", f"--trainer.max_steps={step}")
        cli(*command, f"--output_dir=part{step}", "--ckpt_path=last")
        assert_same(weights(f"part{step}"), expected)
    result = cli(*command, "--trainer.limit_train_batches=1.0", code=1)
    assert "streaming has no end" in result.err
    assert "--trainer.max_steps" in result.err


def test_a_tokenizer_trained_on_the_data_travels(cli, tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", [{"text": f"the {word} sat. " * 20} for word in ("cat", "dog", "hen")])
    options = ("--data.path", file, "--data.tokenizer=train", "--data.vocab_size=280", "--data.validation_fraction=0.3")
    cli("fit", *RUN, *options)
    facts = torch.load("outputs/language_modelling/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"][
        "facts"
    ]
    assert Tokens.from_facts(facts["tokens"]).vocab_size == facts["options"]["vocab_size"] > 257
    cli("validate", *CONFIG, *options)
    result = cli("validate", *CONFIG, *options, "--data.tokenizer=bytes", code=1)
    assert "another vocabulary than the data" in result.err
    assert "--data.tokenizer" in result.err
    result = cli("validate", *CONFIG, *options, "--data.vocab_size=259", code=1)
    assert "another vocabulary than the data" in result.err


def test_a_checkpoint_of_another_network(cli, novels):
    cli("fit", *RUN, "--data.path", novels, "--trainer.max_steps=1")
    result = cli("validate", *CONFIG, "--data.path", novels, "--model.options.dim=16", code=1)
    assert "the checkpoint is of another model" in result.err
    assert "dim=8" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data.path=",), ("path: no data given",)),
        (("--data.path=nowhere.txt",), ("nowhere.txt", "no such local file or folder")),
        (("--model.network=lambda_encoder",), ("predicts no next token", "lambda_lm")),
        (("--data.length=0",), ("length=0",)),
        (("--data.streaming=true",), (".txt files are read in place",)),
        (("--trainer.callbacks.length=0",), ("length=0: expected at least 1",)),
    ],
)
def test_bad_input_is_one_clear_message(cli, novels, arguments, words):
    result = cli("fit", *RUN, "--data.path", novels, *arguments, code=1)
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


@pytest.mark.slow
def test_two_processes_count_each_token_once(cli, novels):
    cli("fit", *RUN, "--data.path", novels, "--test_after_fit=false", "--trainer.max_steps=2")
    command = ("predict", *CONFIG, "--data.path", novels, "--data.batch_size=1", "--predictions.path=p.jsonl")
    cli(*command)
    cli(*command, "--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp_fork")

    def sums(*names):
        rows = [json.loads(line) for name in names for line in Path(name).read_text().splitlines()]
        return sum(row["tokens"] for row in rows), sum(row["tokens"] * row["loss"] for row in rows)

    found, expected = sums("p-0.jsonl", "p-1.jsonl"), sums("p.jsonl")
    assert found[0] == expected[0] == 39
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
