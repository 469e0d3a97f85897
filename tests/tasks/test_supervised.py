"""A task is one class, a head's name and its metrics: it trains, is tested, predicts, and survives a checkpoint."""

import json
import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from torchmetrics import MeanAbsoluteError, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lambda_seq.models.heads import IGNORED
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.metrics import mean_loss
from lambda_seq.tasks.supervised import Supervised
from lambda_seq.tasks.training import Training

TINY = {"dim": 8, "depth": 1, "heads": 2, "dim_key": 4, "scope": 3}
FACTS = Facts(kind="tokens", options={"num_classes": 3, "vocab_size": 9, "max_length": 12})
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
pytestmark = pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec:FutureWarning", "ignore:.*does not have many workers"
)


class Regression(Supervised):
    head = "numbers"

    def metrics(self, stage):
        return MetricCollection({"error": MeanAbsoluteError()})


class Tagging(Supervised):
    head = "positions"

    def metrics(self, stage):
        return MetricCollection({"accuracy": MulticlassAccuracy(3, average="micro")})


class Marking(Supervised):
    head = "labels"

    def metrics(self, stage):
        return MetricCollection({})


TASKS = {Regression: (4, 3), Tagging: (4, 12), Marking: (4, 3)}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def batch(kind):
    mask = torch.arange(12) < torch.tensor([12, 7, 3, 12])[:, None]
    x = torch.randint(1, 9, (4, 12)) * mask
    label = x % 3 if kind is Tagging else torch.randint(2, TASKS[kind]).float()
    return {"x": x, "mask": mask, "label": label, "id": list("abcd")}


@pytest.mark.parametrize("kind", TASKS)
def test_it_trains_is_tested_and_predicts(kind, tmp_path):
    task, given = kind("lambda_encoder", TINY, facts=FACTS, optimizer=lambda p: torch.optim.Adam(p, 0.05)), batch(kind)
    loader = DataLoader([given], batch_size=None)
    trainer = Trainer(max_epochs=30, accelerator="cpu", num_sanity_val_steps=0, inference_mode=False, **QUIET)
    before = trainer.validate(task, loader, verbose=False)[0]
    trainer.fit(task, loader, loader)
    after = trainer.test(task, loader, verbose=False)[0]
    assert after["test/loss"] < 0.7 * before["val/loss"]
    assert set(after) == {"test/loss", *(f"test/{name}" for name in task.metrics("test"))}
    predicted = task.eval().predict_step(given, 0)
    assert predicted["id"] == list("abcd")
    assert predicted["answers"].shape == (*TASKS[kind], 3)[: 3 if kind is Tagging else 2]
    table = task.prediction_table()
    rows = table.rows(predicted)
    assert list(table.columns) == ["id", "answer"]
    assert [row[0] for row in rows] == list("abcd")
    assert torch.allclose(torch.tensor(json.loads(rows[2][1])), predicted["answers"][2])
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    again = kind.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=True).eval()
    assert again.facts == FACTS
    assert torch.equal(again(given), task(given))


def test_padding_does_not_count():
    task, given = Tagging("lambda_encoder", TINY, facts=FACTS).eval(), batch(Tagging)
    found = []
    for fill in (0, 2, IGNORED):
        task.log = lambda *_, **__: None
        task.val_loss = mean_loss()
        label = given["label"].masked_fill(~given["mask"], fill)
        task.evaluate("val", given | {"label": label}, 0)
        found.append((task.val_loss.compute().item(), task.val_metrics.compute()["val/accuracy"].item()))
        task.val_metrics.reset()
        assert task.val_loss.weight == given["mask"].sum()
    assert found[0] == found[1] == found[2]


def test_numbers_that_are_not_known_do_not_count():
    task, given = Regression("lambda_encoder", TINY, facts=FACTS).eval(), batch(Regression)
    label = given["label"].clone()
    label[0] = math.nan
    loss, count = task.objective.loss(task(given), label)
    assert count == 9
    torch.testing.assert_close(loss, (task(given)[1:] - label[1:]).square().mean())


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("lambda_encoder", {"head": "labels"}, "options.head='labels': the task has head='numbers'; leave it out"),
        ("lambda_lm_tiny", {}, "is a LambdaLM, whose head is 'tokens': the task needs head='numbers'"),
        (
            "lambda_resnet_tiny",
            {},
            "takes image but the data are tokens: choose lambda_encoder with options.stem: tokens",
        ),
    ],
)
def test_a_network_without_the_head(network, options, message):
    with pytest.raises(ValueError, match=message):
        Regression(network, options, facts=FACTS)


def test_a_task_may_be_given_facts_or_primitives():
    first, second = (Regression("lambda_encoder", TINY, facts=facts) for facts in (FACTS, FACTS.to_dict()))
    assert first.facts == second.facts == FACTS
    assert first.hparams == second.hparams
    assert first.hparams["facts"] == first.hparams_initial["facts"] == FACTS.to_dict()
    assert "optimizer" not in first.hparams
    assert isinstance(first, Training)
