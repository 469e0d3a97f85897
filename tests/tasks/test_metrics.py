"""Figures of classification: equal to scikit-learn's, and right for batches, processes and absent classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch.utils.data import DataLoader, DistributedSampler

from lambda_seq.tasks.language_modelling import BitsPerByte, Perplexity, Scores
from lambda_seq.tasks.metrics import (
    BINS,
    CalibrationError,
    Mean,
    Reliability,
    TrainingLoss,
    evaluation_metrics,
    exact,
    exact_device,
    mean_loss,
    own_rows,
    report_metrics,
    training_metrics,
)
from lambda_seq.tasks.pretraining import Explained, Hits

CLASSES = 5


def answers(rows=203, absent=3, never=1):
    """Probabilities (rows, 5) and labels (rows,): one class does not occur, another is never predicted."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (rows,), generator=generator)
    labels[labels == absent] = 0
    logits = torch.randn(rows, CLASSES, generator=generator)
    logits[torch.arange(rows), labels] += 1
    logits[:, never] -= 20
    return logits.softmax(-1), labels


def updated(metrics, probabilities, labels, size=32):
    """Metrics of all rows, of which the last batch is smaller."""
    for begin in range(0, len(labels), size):
        metrics.update(probabilities[begin : begin + size], labels[begin : begin + size])
    return metrics.compute()


def test_equal_to_scikit_learn():
    probabilities, labels = answers()
    predicted = probabilities.argmax(-1)
    found = updated(evaluation_metrics(CLASSES), probabilities, labels)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    report = updated(report_metrics(CLASSES), probabilities, labels)
    assert np.array_equal(report["confusion"], confusion_matrix(labels, predicted, labels=range(CLASSES)))
    assert report["scores"][:, 4].tolist() == labels.bincount(minlength=CLASSES).tolist()


def test_training_metrics_take_logits():
    probabilities, labels = answers()
    metrics = training_metrics(CLASSES)
    assert updated(metrics, probabilities.log(), labels) == updated(metrics.clone(), probabilities, labels)
    assert set(metrics) == {"accuracy", "f1"}


def test_calibration_error_by_its_definition():
    probabilities, labels = answers()
    found = updated(evaluation_metrics(CLASSES), probabilities, labels)["calibration_error"]
    confidence, predicted = (part.numpy() for part in probabilities.max(-1))
    right, bins = predicted == labels.numpy(), np.floor(confidence * BINS)
    gaps = [(bins == b).mean() * abs(right[bins == b].mean() - confidence[bins == b].mean()) for b in set(bins)]
    assert found == pytest.approx(sum(gaps), abs=1e-6)

    rows, total, correct = updated_reliability(probabilities, labels).unbind(1)
    assert rows.sum() == len(labels)
    assert correct.sum() == right.sum()
    assert (correct - total).abs().sum() / len(labels) == pytest.approx(sum(gaps), abs=1e-6)


def updated_reliability(probabilities, labels):
    metric = Reliability()
    metric.update(probabilities[:100], labels[:100])
    metric.update(probabilities[100:], labels[100:])
    return metric.compute()


def test_certain_answers_are_in_the_last_bin():
    sums = Reliability()(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    assert sums[-1].tolist() == [2, 2, 1]
    assert sums[:-1].sum() == 0


def test_no_matrix_of_very_many_classes():
    assert "confusion" in report_metrics(1000)
    assert "confusion" not in report_metrics(1001)


@pytest.mark.parametrize(("rows", "processes", "batch"), [(10, 3, 2), (9, 3, 4), (1, 2, 4), (8, 3, 1), (7, 2, 4)])
def test_rows_that_processes_repeat_are_not_counted(rows, processes, batch):
    counted = []
    for rank in range(processes):
        sampler = DistributedSampler(range(rows), num_replicas=processes, rank=rank, shuffle=False)
        loader = DataLoader(range(rows), batch_size=batch, sampler=sampler)
        trainer = SimpleNamespace(world_size=processes, testing=True, test_dataloaders=loader, val_dataloaders=None)
        module = SimpleNamespace(trainer=trainer)
        for index, values in enumerate(loader):
            counted += values[: own_rows(module, index, len(values))].tolist()
    assert sorted(counted) == list(range(rows))


def test_documents_that_processes_repeat_are_not_counted():
    documents = [["a"], ["b", "c"], ["d", "e", "f"]]  # batches of whole documents, as items of their own
    counted = []
    for rank in range(2):
        sampler = DistributedSampler(documents, num_replicas=2, rank=rank, shuffle=False)
        loader = DataLoader(documents, batch_size=1, sampler=sampler, collate_fn=lambda items: items[0])
        trainer = SimpleNamespace(world_size=2, testing=False, test_dataloaders=None, val_dataloaders=[loader])
        for index, names in enumerate(loader):
            counted += names[: own_rows(SimpleNamespace(trainer=trainer), index, len(names))]
    assert sorted(counted) == list("abcdef")


def test_one_process_counts_all():
    assert own_rows(LightningModule(), 0, 7) == 7
    assert own_rows(SimpleNamespace(trainer=SimpleNamespace(world_size=1)), 0, 7) == 7


def test_the_mean_loss_weighs_rows():
    metric = mean_loss()
    metric.update(torch.tensor(1.0), 3)
    metric.update(torch.tensor(5.0), 1)
    assert metric.compute() == 2
    metric.update(torch.tensor([2.0, 8.0]), torch.tensor([3, 1]))  # or many at once
    assert metric.compute() == 22 / 8
    metric.update(torch.tensor([0.0, 0.0]), 4)
    assert metric.compute() == 22 / 16
    metric.update(torch.tensor(torch.nan), 1)
    assert metric.compute().isnan()


EXACT = [Mean, TrainingLoss, Perplexity, BitsPerByte, Hits, Explained, Reliability, CalibrationError]


def sums(metric):
    return [state for state in metric.metric_state.values() if state.is_floating_point()]


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(
    "bring",
    [
        lambda module: module.to(torch.bfloat16),  # bf16-true
        lambda module: module.half(),
        lambda module: module.float(),
        lambda module: module.to("cpu", torch.float16),
        lambda module: module.type(torch.float16),
        lambda module: [metric.set_dtype(torch.float16) for metric in module],
        lambda module: [metric.reset() for metric in module],
        lambda module: module.to_empty(device="cpu"),
    ],
)
def test_sums_are_float64_wherever_a_module_is_brought(kind, bring):
    module = torch.nn.ModuleList([kind()])
    bring(module)
    assert all(state.dtype == torch.float64 for state in sums(module[0]))
    module[0].reset()
    assert all(state.dtype == torch.float64 for state in sums(module[0]))


def test_what_was_summed_up_survives_another_precision():
    metric = Mean()
    metric.update(1 / 3, 1000)
    assert metric.to(torch.bfloat16).compute() == 1 / 3
    metric.half().update(torch.tensor(1 / 3, dtype=torch.float64), 1)
    assert metric.compute() == pytest.approx(1 / 3, abs=1e-15)


def test_sums_stay_on_the_cpu_where_a_device_has_no_float64():
    assert exact_device(torch.device("mps")) == torch.device("cpu")
    assert exact_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert exact(torch.tensor([1, 2]), torch.device("cpu")).dtype == torch.float64


def test_a_module_on_a_device_without_memory():
    module = torch.nn.ModuleList([Mean()]).to("meta")
    assert sums(module[0])[0].is_meta
    assert sums(module.to_empty(device="cpu")[0]) == [0, 0]


@pytest.mark.parametrize("kind", [Mean, Perplexity, TrainingLoss])
def test_a_loss_that_is_no_number_stays_one(kind):
    metric = kind()
    for value in (2.0, torch.nan, 2.0):
        metric.update(torch.tensor(value), 100)
    assert metric.compute().isnan()


def test_a_batch_that_is_no_number_stays_in_all_figures():
    scores = Scores()
    for nats in (200.0, torch.nan, 200.0):
        scores.update(torch.tensor(nats), torch.tensor(100), torch.tensor(100.0))
    assert all(getattr(scores, name).compute().isnan() for name in ("loss", "perplexity", "bits_per_byte"))
    explained = Explained()
    explained.update(torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert explained.compute().isnan()
    error = CalibrationError()
    error.update(torch.tensor([[0.5, 0.5], [torch.nan, torch.nan]]), torch.tensor([0, 1]))
    assert error.compute().isnan()


def test_a_million_updates_do_not_drift():
    """As many as a streamed training has; float32 is off by 1e-3 after a fifth of them."""
    metric, explained = Mean(), Explained()
    value, weight = torch.tensor(1.1), torch.tensor(4096)
    metric.mean_value += 800_000 * 4096 * value.double()  # what so many updates come to
    metric.weight += 800_000 * 4096
    for _ in range(1000):
        metric.update(value, weight)
    assert metric.compute() == pytest.approx(float(value), rel=1e-12)
    target = 1000 + torch.randn(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for part in target.split(100):
        explained.update(part.float() - 0.5, part.float())
    expected = 1 - 0.25 * len(target) / (target - target.mean()).square().sum()
    assert explained.compute() == pytest.approx(float(expected), abs=1e-5)  # in float32, whatever is left of the sums


@pytest.mark.parametrize("size", [1, 7, 64, 203])
def test_no_figure_depends_on_the_batch_size(size):
    probabilities, labels = answers()
    expected = updated(evaluation_metrics(CLASSES), probabilities, labels, 32)
    found = updated(evaluation_metrics(CLASSES), probabilities, labels, size)
    assert found == {name: pytest.approx(float(value), abs=1e-12) for name, value in expected.items()}


def test_right_answers_of_batches_some_of_which_are_empty():
    metric = Hits()
    for logits, ids in ((torch.eye(3), [0, 1, 0]), (torch.zeros(0, 3), []), (torch.eye(3)[:1], [0])):
        metric.update(logits, torch.tensor(ids, dtype=torch.int64))
    assert metric.compute() == 0.75


def test_the_loss_of_a_step_beside_that_of_the_epoch():
    metric = TrainingLoss()
    metric.update(torch.tensor(3.0), 1)
    metric.show(torch.tensor(9.0))
    assert (metric._forward_cache, metric.compute()) == (9, 3)


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 6.0], (1, 2, 6), np.array([1, 2, 6], np.float32), torch.tensor([1, 2, 6])]
)
def test_many_values_at_once(values):
    metric = Mean()
    metric.update(values)
    assert metric.compute() == 3
    metric.update(np.float32(7.0), 3)
    assert metric.compute() == 5


def test_an_answer_that_is_no_number_is_not_right():
    metric = Hits()
    metric.update(torch.tensor([[torch.nan, torch.nan], [torch.nan, 1.0], [2.0, 1.0]]), torch.tensor([0, 1, 0]))
    assert metric.compute() == pytest.approx(1 / 3)
