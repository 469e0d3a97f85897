import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lambda_seq.layers import LambdaLayer1d, LambdaLayer2d
from lambda_seq.layers.attention import AxialAttention, LinearAttention, LocalAttention, RelativeAttention
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


C, HEADS = 12, 3  # channels and heads of attention; a head has depth 4
Y, X = 5, 6


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (LinearAttention(C, HEADS), 2 * Y * X * C * 4),
        (RelativeAttention(C, heads=HEADS, max_size=(9, 9)), 2 * (Y * X) ** 2 * C + Y * X * C * (Y + X)),
        (
            AxialAttention(C, heads=HEADS, max_size=(9, 9)),
            Y * (2 * X * X * C + X * C * X) + X * (2 * Y * Y * C + Y * C * Y) + Y * X * 3 * C * C,
        ),
        (LocalAttention(C, heads=HEADS, scope=3), 2 * Y * X * 9 * C + Y * X * C // 2 * (3 + 3)),
        (LocalAttention(C, heads=HEADS, scope=(9, 3)), 2 * Y * X * 5 * 3 * C + Y * X * C // 2 * (9 + 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attention_by_hand(layer, by_hand):
    projections = Y * X * 3 * C * C
    for batch in (1, 3):
        assert count_flops(layer, torch.zeros(batch, C, Y, X)) == 2 * batch * (projections + by_hand)


@pytest.mark.parametrize("letter", "EGASK")
def test_mixers_count_within_a_network(letter):
    options = {"blocks": (1,), "width": 16, "stem": "small", "image_size": 8}
    mixed = create_model("resnet_tiny", placement=letter, **options)
    plain = create_model("resnet_tiny", placement="C", **options)
    x = torch.empty(1, 3, 8, 8)
    convolution = 2 * 64 * 9 * 16 * 16
    mixer = count_flops(mixed.stages[0][0].mix, torch.empty(1, 16, 8, 8))
    assert count_flops(mixed, x) - mixer == count_flops(plain, x) - convolution


def test_the_model_is_left_as_it_is():
    model = create_model("lambda_encoder_tiny").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_flops(model, torch.zeros(1, 12, dtype=torch.int64)) > 0
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    after = model.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


def counted_by_torch(model, x):
    with FlopCounterMode(display=False) as counter:
        model.eval().requires_grad_(False)(x)
    return counter.get_total_flops()


def test_torch_counts_the_same_of_what_it_knows():
    with torch.device("meta"):
        model, x = create_model("resnet50"), torch.empty(1, 3, 64, 64)
    assert count_flops(model, x) == counted_by_torch(model, x)


def test_torch_does_not_count_a_lambda_layer_by_its_definition():
    """Should this fail, torch's counter may take the place of `count_flops`."""
    x, whole = torch.zeros(1, 64, 16), count_flops(LambdaLayer1d(16, scope=7), torch.zeros(1, 64, 16))
    content = count_flops(LambdaLayer1d(16, position=False), x)
    for algorithm in ("dense", "toeplitz", "fft"):
        assert counted_by_torch(LambdaLayer1d(16, scope=7, algorithm=algorithm), x) == content < whole
    assert counted_by_torch(LambdaLayer1d(16, scope=7, algorithm="naive"), x) > whole
    causal = LambdaLayer1d(16, position=False, causal=True)
    assert counted_by_torch(causal, x) != count_flops(causal, x)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolutions(stride):
    layer, x = nn.ConvTranspose2d(4, 6, 3, stride, groups=2), torch.zeros(2, 4, 5, 7)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert count_flops(layer, x) == counter.get_total_flops() == 2 * x.numel() * 3 * 9
