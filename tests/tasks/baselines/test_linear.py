"""Logistic regression for baselines: the same as the library's, whichever way it is computed, within bounds of work."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from lambda_seq.tasks.baselines import linear
from lambda_seq.tasks.baselines.linear import Regression, Sample, choose, rows_within, spread
from lambda_seq.tasks.metrics import evaluation_metrics, mean_loss


def rows(count=60, classes=3, width=200, seed=0):
    random = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = random.random((count, width)) * (random.random((count, width)) < 0.1)
    x[np.arange(count), y] += 0.7
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Sample(sparse.csr_matrix(x.astype(np.float32)), y)


def test_few_sparse_rows_give_the_same_model(monkeypatch):
    train, other = rows(), rows(30, seed=1)
    compact = Regression(train, 3).fit(10.0)
    assert compact.x.shape[1] <= 60
    monkeypatch.setattr(linear, "COMPACT", 0)
    whole = Regression(train, 3).fit(10.0)
    assert whole.x.shape[1] == 200
    np.testing.assert_allclose(compact(other.x), whole(other.x), atol=2e-3)


@pytest.mark.parametrize("cost", [0, 1e9], ids=["sparse", "dense"])
def test_products_of_sparse_rows(monkeypatch, cost):
    monkeypatch.setattr(linear, "SPARSE_COSTS", cost)
    monkeypatch.setattr(linear, "COLUMNS", 64)
    x, other = rows().x, rows(30, seed=1).x
    np.testing.assert_allclose(linear.products(x, other), x.toarray() @ other.toarray().T, atol=1e-6)


def test_dense_features_are_standardised():
    random = np.random.default_rng(0)
    x = (random.standard_normal((80, 5)) * [1, 10, 1e-3, 1, 0] + [0, 50, 7, 0, 3]).astype(np.float32)
    y = (x[:, 1] > 50).astype(int)
    found = Regression(Sample(x, y), 2).fit(1.0)
    scaled = (x - x.mean(0)) / np.where(x.std(0) > 1e-9, x.std(0), 1)
    expected = LogisticRegression(max_iter=200).fit(scaled, y).predict_proba(scaled)
    np.testing.assert_allclose(found(x), expected, atol=1e-2)
    assert np.isfinite(found(x + 1)).all()


def test_classes_without_training_rows_have_probability_0():
    train = rows(40, classes=2)
    train = Sample(train.x, train.y * 2)
    answers = Regression(train, 4).fit(1.0)(train.x)
    assert answers.shape == (40, 4)
    assert (answers[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(answers.sum(1), 1)


def test_figures_are_those_of_the_networks():
    random = np.random.default_rng(0)
    answers = random.dirichlet(np.ones(5), 50)
    y = random.integers(0, 4, 50)
    metrics = evaluation_metrics(5)
    metrics.update(torch.tensor(answers), torch.tensor(y))
    found, expected = Regression.figures(answers, y), metrics.compute()
    loss = mean_loss()
    loss.update(torch.nn.functional.nll_loss(torch.tensor(answers).log(), torch.tensor(y)), 50)
    assert found["accuracy"] == pytest.approx(float(expected["accuracy"]))
    assert found["f1"] == pytest.approx(float(expected["f1"]))
    assert found["loss"] == pytest.approx(float(loss.compute()))


def test_the_strength_is_the_one_that_is_best_on_validation():
    train, validation = rows(), rows(45, seed=2)
    choice = choose(train, validation, 3)
    scores = {
        c: Regression.figures(Regression(train, 3).fit(c)(validation.x), validation.y)["accuracy"]
        for c in linear.SPARSE
    }
    assert choice.strength in linear.SPARSE
    assert choice.score == pytest.approx(scores[choice.strength], abs=0.03)
    assert choice.score >= scores[1.0] - 0.03


def test_without_validation_the_training_rows_take_turns():
    choice = choose(rows(), None, 3)
    assert choice.score > 0.9
    assert choose(Sample(rows().x[:2], np.array([0, 1])), None, 2).strength in linear.SPARSE  # too few for that
    alone = rows(9)
    rare = Sample(alone.x, np.array([0] * 8 + [1]))
    assert choose(rare, None, 2).strength in linear.SPARSE


def test_rows_within_a_bound_of_work(monkeypatch):
    monkeypatch.setattr(linear, "COMPACT", 10)
    train = rows(60)
    limits = {True: train.x.nnz * 3 / 2, False: 60 * 200 / 3}
    assert rows_within(train, 3, limits) == 30
    assert rows_within(Sample(train.x.toarray(), train.y), 2, limits) == 20
    assert rows_within(train, 3, {True: 1.0, False: 1.0}) == 10
    assert rows_within(train, 3, {True: 1e9, False: 1e9}) == 60


def test_a_sample_has_the_same_share_of_each_class():
    y = np.array([0] * 600 + [1] * 300 + [2] * 99 + [3])
    np.random.default_rng(0).shuffle(y)
    chosen = spread(y, 100)
    counts = np.bincount(y[chosen], minlength=4)
    assert counts[3] == 1
    assert abs(counts[0] - 60) <= 2
    assert abs(counts[1] - 30) <= 2
    assert (np.diff(chosen) > 0).all()
    assert spread(y, 5000).tolist() == list(range(1000))
