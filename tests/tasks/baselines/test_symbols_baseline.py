"""Generated tasks: the baseline stands beside their own rules."""

import numpy as np
import pytest
import torch

from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.baselines.symbols import counts
from lambda_seq.tasks.data import ListOpsData, RecallData


def test_listops_knows_the_operator_at_the_root(tmp_path):
    sizes = {"train_size": 1000, "validation_size": 200, "test_size": 200, "shortest": 5, "longest": 40}
    data = ListOpsData(str(tmp_path), **sizes)
    found = fit_baseline(data)
    rule = data.facts.baselines["test"]["root_operator"]
    assert found.figures["test"]["root_operator"] == rule
    assert found.figures["test"]["accuracy"] > rule - 0.03
    assert found.figures["test"]["majority"] < rule
    assert "1,000 training sequences" in found.line


def test_recall_has_its_rules_beside_it():
    data = RecallData(length=40, pairs=4, train_size=300, validation_size=50, test_size=50, values=4)
    found = fit_baseline(data)
    assert set(found.figures["val"]) == {"accuracy", "f1", "loss", "majority", "chance", "most_frequent"}
    assert found.figures["test"]["chance"] == 0.25
    assert 0.15 < found.figures["test"]["accuracy"] < 0.75


def test_counts():
    found = counts(torch.tensor([3, 1, 1, 9]), 5)
    assert found[:5] == pytest.approx(np.log1p([0, 2, 0, 1, 1]))
    assert found[5:10].tolist() == [0, 0, 0, 1, 0]
    assert found[10:].tolist() == [0, 0, 0, 0, 1]
    assert not counts(torch.zeros(0, dtype=torch.int64), 5).any()
