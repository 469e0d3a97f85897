"""Which options are left to a recipe, and which a checkpoint has."""

import time

import pytest
import torch
from jsonargparse import Namespace
from small_data import texts, write_jsonl

from lambda_seq.tasks.callbacks.resuming import RECORD
from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.recipes import Choice, named
from lambda_seq.tasks.recipes.choosing import NOTHING, as_words, measured_choices, trained_choices, value_of

ADAMW = Namespace(class_path="torch.optim.AdamW", init_args=Namespace(lr=0.001, weight_decay=0.01))
SGD = Namespace(class_path="torch.optim.SGD", init_args=Namespace(lr=0.001, weight_decay=0.0))


def config(network="lambda_encoder", task="classification.Classification", optimizer=ADAMW, **model):
    own = {"label_smoothing": 0.0} if task.endswith("Classification") else {}
    model = {"network": network, "options": None, "optimizer": optimizer, "init_from": None} | own | model
    sizes = {"tokenizer": "bytes", "max_length": 4096, "part": "start", "batch_size": 32, "pad_to_multiple": 64}
    return Namespace(
        model=Namespace(class_path=f"lambda_seq.tasks.{task}", init_args=Namespace(**model)),
        data=Namespace(class_path="lambda_seq.tasks.data.TextData", init_args=Namespace(**sizes)),
        trainer=Namespace(max_epochs=None),
        best=Namespace(monitor="val/accuracy"),
    )


@pytest.fixture
def data(tmp_path):
    rows = [
        *texts(40),
        *({"text": "dog", "label": "canine"} for _ in range(80)),
    ]  # 100 and 20, of which a tenth is held out
    return TextData(str(write_jsonl(tmp_path / "texts.jsonl", rows)))


def chosen(data, parsed, **given):
    return {one.option for one in measured_choices(named("texts"), data, parsed, given)[1]}


def test_what_the_task_the_network_and_the_optimizer_take(data):
    every = chosen(data, config())
    assert {"model.label_smoothing", "best.monitor", "model.optimizer.lr", "model.options.dim"} <= every
    rates = {"model.optimizer.lr", "model.optimizer.weight_decay", "model.optimizer.fused"}
    assert every - chosen(data, config(optimizer=SGD)) == rates
    assert every - chosen(data, config(optimizer=None)) == rates
    pretraining = chosen(data, config(task="pretraining.MaskedPretraining"))
    assert every - pretraining == {"model.label_smoothing", "best.monitor"}
    other = {name for name in chosen(data, config(network="lambda_encoder_base")) if name.startswith("model.options.")}
    assert other == {"model.options.stem", "model.options.token_dropout"}
    assert not any(
        name.startswith("model.options.") for name in chosen(data, config(network="lambda_resnet50")) - other
    )


def test_what_is_given_is_left_alone(data):
    every = chosen(data, config())
    given = {"model.options.dim": 8, "best.monitor": None, "trainer.max_epochs": None, "model.options": None}
    assert every - chosen(data, config(), **given) == {"model.options.dim", "best.monitor", "trainer.max_epochs"}


def test_data_of_another_kind(data):
    with pytest.raises(ValueError, match="recipe='audio' is for AudioData, and data is TextData: give another"):
        measured_choices(named("audio"), data, config(), {})


def test_what_a_run_was_trained_with(tmp_path):
    """Network options as they were given, null included; of the others those that are not the default anyway."""
    options = {
        "data.max_length": 512,
        "data.batch_size": 32,
        "trainer.max_epochs": 9,
        "best.monitor": "val/accuracy",
        "data.path": "a.csv",
        "model.options.dim": 24,
        "model.optimizer.lr": 0.1,
    }
    network = {"dim": 24, "scope": "None", "heads": 2}
    saved = {"hyper_parameters": {"network": "lambda_encoder", "options": network}, "state_dict": {}}
    torch.save(saved | {RECORD: {"options": options}}, tmp_path / "a.ckpt")

    def found(**given):
        chosen = trained_choices(named("texts"), str(tmp_path / "a.ckpt"), config(), given)
        return {one.option: one.value for one in chosen}

    assert found() == {
        "data.max_length": 512,
        "trainer.max_epochs": 9,
        "model.optimizer.lr": 0.1,
        "model.options.dim": 24,
        "model.options.scope": "None",
        "model.options.heads": 2,
    }
    assert "data.max_length" not in found(**{"data.max_length": 64})
    torch.save(saved, tmp_path / "a.ckpt")  # of a version that kept no record
    assert set(found()) == {f"model.options.{name}" for name in network}
    torch.save({"weights": torch.zeros(1)}, tmp_path / "a.ckpt")
    assert found() == {}


def test_values_and_words():
    parsed = config()
    assert value_of(parsed, "data.max_length") == 4096
    assert value_of(parsed, "model.optimizer.lr") == 0.001
    assert value_of(parsed, "model.options") is None
    assert value_of(parsed, "model.options.dim") is value_of(parsed, "model.mixup") is NOTHING
    assert as_words([Choice("a", [2, 4], ""), Choice("b", "x", ""), Choice("c", None, ""), Choice("d", True, "")]) == [
        *("--a=[2, 4]", "--b=x", "--c=null", "--d=true")
    ]


@pytest.mark.slow
def test_twenty_thousand_texts_are_measured_in_two_seconds(tmp_path):
    rows = [{"text": "not a bad film " * (1 + row % 180), "label": row % 2} for row in range(20_000)]  # 27 MB
    data = TextData(str(write_jsonl(tmp_path / "texts.jsonl", rows)))
    assert len(data.split("train")) == 18_000
    begun = time.process_time()
    named("texts").choose(named("texts").measure(data))
    assert time.process_time() - begun < 2
