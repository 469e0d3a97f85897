"""Weight decay and the course of the learning rate."""

import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer1d
from tasks.optimization import decay_groups, warmup_cosine


def test_norms_biases_and_position_tables_do_not_decay():
    model = nn.ModuleDict(
        {"layer": LambdaLayer1d(8, heads=2, scope=3), "linear": nn.Linear(8, 2), "norm": nn.LayerNorm(8)}
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay, free = ([names[id(parameter)] for parameter in group["params"]] for group in decay_groups(model))
    assert "linear.weight" in decay
    assert {"layer.position.weight", "linear.bias", "norm.weight", "norm.bias"} <= set(free)
    assert len(decay) + len(free) == len(names)
    optimizer = torch.optim.AdamW(decay_groups(model), weight_decay=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_warm_up_then_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = warmup_cosine(optimizer, steps=100, warmup=10, final=0.1)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(2 / 11)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(2 * 0.55)
    assert rates[100] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_no_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    warmup_cosine(optimizer, steps=1, warmup=0, final=0.0)
    assert optimizer.param_groups[0]["lr"] == 1.0
