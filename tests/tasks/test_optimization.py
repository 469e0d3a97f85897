"""Weight decay and the course of the learning rate."""

import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer1d
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.optimization import Positions, decay_groups, scale_positions, warmup_cosine


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


@pytest.mark.parametrize(("lr", "rate"), [(0.1, 0.2), (0.0, 0.0), (None, 2.0)])
def test_position_embeddings_have_a_rate_and_a_decay_of_their_own(lr, rate):
    positions = Positions(lr, decay=0.03)
    layer = LambdaLayer1d(8, heads=2, scope=3)
    optimizer = torch.optim.AdamW(decay_groups(layer, positions), lr=2.0, weight_decay=0.1)
    scale_positions(optimizer, positions)
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 2.0, pytest.approx(rate)]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0, 0.03]
    scheduler = warmup_cosine(optimizer, steps=10, warmup=0, final=0.0)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([1.0, 1.0, rate / 2])


TOKENS = {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 9}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position_lr": -0.1}, "position_lr=-0.1: expected a number of at least 0"),
        ({"position_decay": float("nan")}, "position_decay=nan: expected a number"),
        (
            {"position_lr": 0.1, "options": {"position": False}},
            "position_lr=0.1, position_decay=None: lambda_encoder_tiny has no position embeddings here; leave them out",
        ),
    ],
)
def test_rates_of_positions_that_mean_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        Classification("lambda_encoder_tiny", facts=TOKENS, **options)
