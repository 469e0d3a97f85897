import pytest
import torch
from torch import nn

from lambda_seq.layers import LambdaLayer1d, LambdaLayer2d
from lambda_seq.models import count_flops, create_model

N, D, H, K, U = 9, 8, 2, 3, 2
V = D // H
PROJECTIONS = N * D * (H * K + U * K + U * V)


@pytest.mark.parametrize(
    ("options", "in_scope"),
    [
        ({"scope": 5}, 5),
        ({"scope": 31}, N),
        ({"scope": None, "max_length": N}, N),
        ({"scope": 4, "causal": True}, 4),
        ({"scope": None, "max_length": 2 * N, "causal": True}, N),
    ],
)
def test_lambda_layer_by_hand(options, in_scope):
    layer = LambdaLayer1d(D, heads=H, dim_key=K, dim_intra=U, **options)
    by_hand = PROJECTIONS + N * K * V * (U + H) + N * K * V * (U * in_scope + H)
    assert count_flops(layer, torch.zeros(1, N, D)) == 2 * by_hand
    assert count_flops(layer, torch.zeros(3, N, D)) == 3 * 2 * by_hand


def test_content_and_position_alone():
    content = LambdaLayer1d(D, heads=H, dim_key=K, dim_intra=U, position=False)
    position = LambdaLayer1d(D, heads=H, dim_key=K, dim_intra=U, content=False, scope=5)
    x = torch.zeros(1, N, D)
    assert count_flops(content, x) == 2 * (PROJECTIONS + N * K * V * (U + H))
    assert count_flops(position, x) == 2 * (PROJECTIONS - N * D * U * K + N * K * V * (U * 5 + H))


def test_scope_is_clipped_in_each_dimension():
    layer = LambdaLayer2d(D, heads=H, dim_key=K, scope=(3, 7), content=False)
    projections = 4 * 5 * D * (H * K + V)
    assert count_flops(layer, torch.zeros(1, D, 4, 5)) == 2 * (projections + 4 * 5 * K * V * (3 * 5 + H))


def test_convolutions_and_linear_layers():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Flatten(), nn.Linear(6 * 3 * 4, 5))
    assert count_flops(model, torch.zeros(2, 4, 5, 7)) == 2 * 2 * (6 * 3 * 4 * (4 // 2) * 9 + 6 * 3 * 4 * 5)
    assert count_flops(nn.Conv1d(2, 3, 5, padding=2), torch.zeros(1, 2, 11)) == 2 * 11 * 2 * 3 * 5
    assert count_flops(nn.BatchNorm1d(4), torch.zeros(2, 4)) == 0


def test_the_model_is_left_as_it_is():
    model = create_model("lambda_encoder_tiny").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_flops(model, torch.zeros(1, 12, dtype=torch.int64)) > 0
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    after = model.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
