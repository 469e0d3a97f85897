"""Figures of classification: equal to scikit-learn's, and right for batches, processes and absent classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch.utils.data import DataLoader, DistributedSampler

from tasks.metrics import BINS, Reliability, evaluation_metrics, mean_loss, own_rows, report_metrics, training_metrics

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
        module = SimpleNamespace(_trainer=trainer)
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
            counted += names[: own_rows(SimpleNamespace(_trainer=trainer), index, len(names))]
    assert sorted(counted) == list("abcdef")


def test_one_process_counts_all():
    assert own_rows(SimpleNamespace(_trainer=None), 0, 7) == 7
    assert own_rows(SimpleNamespace(_trainer=SimpleNamespace(world_size=1)), 0, 7) == 7


def test_the_mean_loss_weighs_rows():
    metric = mean_loss()
    metric.update(torch.tensor(1.0), 3)
    metric.update(torch.tensor(5.0), 1)
    assert metric.compute() == 2
    metric.update(torch.tensor(torch.nan), 1)
    assert metric.compute().isnan()
