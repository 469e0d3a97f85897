import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lambda_seq.layers import LambdaLayer1d, LambdaLayer2d, RelativePositionTable, resize_positions, resize_table
from lambda_seq.models import create_model

SIZES = [(5, 9), (9, 5), (4, 8), (8, 4), (7, 1), (1, 7), (6, 19), (20, 3)]


def offsets(length, causal=False):
    return torch.arange(1 - length, 1 if causal else length, dtype=torch.float64)


@given(st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_the_same_size_changes_nothing(height, width, density):
    table = torch.randn(2, 3, 2 * height - 1, 2 * width - 1)
    assert torch.equal(resize_table(table, (height, width), (height, width), density=density), table)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_exact_for_tables_linear_in_the_offset(old, new, causal):
    slope = 0.0 if old == 1 else 0.3  # one position has no slope
    table = (2 + slope * offsets(old, causal))[None, None]
    expected = 2 + slope * old / new * offsets(new, causal)
    resized = resize_table(table, (old,), (new,), causal=causal, density=False)
    torch.testing.assert_close(resized[0, 0], expected, rtol=1e-12, atol=1e-12)
    density = resize_table(table, (old,), (new,), causal=causal)
    torch.testing.assert_close(density[0, 0], expected * old / new, rtol=1e-12, atol=1e-12)


def test_exact_for_linear_tables_in_two_dimensions():
    y, x = offsets(4)[:, None], offsets(6)
    table = (1 + 0.2 * y - 0.5 * x + 0.1 * y * x)[None, None]
    y, x = offsets(7)[:, None] * 4 / 7, offsets(5) * 6 / 5
    expected = 1 + 0.2 * y - 0.5 * x + 0.1 * y * x
    resized = resize_table(table, (4, 6), (7, 5), density=False)[0, 0]
    torch.testing.assert_close(resized, expected, rtol=1e-12, atol=1e-12)


def test_each_dimension_by_itself():
    table = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    both = resize_table(table, (4, 5), (6, 3))
    torch.testing.assert_close(both, resize_table(resize_table(table, (4, 5), (6, 5)), (6, 5), (6, 3)))
    turned = resize_table(table.transpose(2, 3), (5, 4), (3, 6)).transpose(2, 3)
    torch.testing.assert_close(both, turned)
    torch.testing.assert_close(resize_table(table.flip(2, 3), (4, 5), (6, 3)), both.flip(2, 3))


@pytest.mark.parametrize("new", [8, 12, 32, 48])
def test_the_response_to_a_picture_shown_larger_or_smaller_stays(new):
    """What a position lambda makes of a smooth signal does not depend on how finely it is sampled."""
    old = 16
    shape = torch.exp(-((offsets(old) / 4) ** 2))[None, None]  # (1, 1, 2N − 1)
    resized = resize_table(shape, (old,), (new,))

    def response(table, length):
        place = (torch.arange(length, dtype=torch.float64) + 0.5) / length
        signal = 1 - 0.7 * torch.cos(2 * torch.pi * place)  # level in the middle, where the query is
        middle = length // 2
        return table[0, 0, length - 1 - middle : 2 * length - 1 - middle] @ signal

    torch.testing.assert_close(response(resized, new), response(shape, old), rtol=0.03, atol=0)


def test_a_coarser_table_averages_noise():
    torch.manual_seed(0)
    table = torch.randn(1, 200, 63)
    resized = resize_table(table, (32,), (8,), density=False)  # each stands for four offsets
    assert resized[..., 4:-4].std() < 0.65 * table.std()
    torch.testing.assert_close(resize_table(table, (32,), (8,)).sum(2), table.sum(2), rtol=0.5, atol=8)


def test_layers_run_at_the_new_size():
    layer = LambdaLayer1d(8, scope=None, max_length=6).eval()
    x = torch.randn(2, 9, 8)
    with pytest.raises(ValueError, match="covers 6: construct the layer with max_length=9, call resize"):
        layer(x)
    layer.resize(9)
    assert layer(x).shape == (2, 9, 8)
    assert layer.position.reach == 8

    picture = LambdaLayer2d(8, scope=None, max_size=(4, 5))
    picture.resize((7, 3))
    assert picture.position.weight.shape == (1, 16, 13, 5)
    picture.resize(6)
    assert picture(torch.randn(2, 8, 6, 6)).shape == (2, 8, 6, 6)
    assert picture.position.weight.requires_grad

    local = LambdaLayer2d(8, scope=3)
    before = local.position.weight
    local.resize(100)
    assert local.position.weight is before
    LambdaLayer2d(8, position=False).resize(4)
    LambdaLayer1d(8, scope=None, position="exponential").resize(4)


def test_a_causal_layer_still_streams():
    layer = LambdaLayer1d(8, scope=None, max_length=6, causal=True).eval()
    layer.resize(11)
    x = torch.randn(2, 11, 8)
    first, state = layer.step(x[:, :4], layer.init_state(2))
    second, _ = layer.step(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), layer(x))


def test_a_table_drawn_anew_after_resizing_has_the_variance_of_its_size():
    for init in ("scaled", "paper"):
        table = RelativePositionTable(1, 16, scope=None, max_size=(4, 4), init=init)
        table.resize((32, 16))
        torch.manual_seed(0)
        table.reset_parameters()
        fresh = RelativePositionTable(1, 16, scope=None, max_size=(32, 16), init=init)
        assert table.std == pytest.approx(fresh.std)
        assert table.weight.std().item() == pytest.approx(fresh.std, rel=0.05)


def test_weights_of_another_size_are_loaded():
    small, large = (LambdaLayer2d(8, scope=None, max_size=size) for size in ((4, 5), (8, 6)))
    weights = small.state_dict()
    kept = weights["position.weight"].clone()
    large.load_state_dict(resize_positions(weights, large))
    assert torch.equal(weights["position.weight"], kept)  # left as it was
    small.resize((8, 6))
    x = torch.randn(1, 8, 8, 6)
    torch.testing.assert_close(large.eval()(x), small.eval()(x))

    table = RelativePositionTable(1, 2, scope=None, max_size=(5,), causal=True)
    resized = resize_positions({"weight": torch.ones(1, 2, 3)}, table)["weight"]
    torch.testing.assert_close(resized, torch.full((1, 2, 5), 3 / 5))


def test_what_is_no_table_of_a_size_is_left_to_loading():
    local = LambdaLayer2d(8, scope=3)
    weights = LambdaLayer2d(8, scope=5).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for position\.weight"):
        local.load_state_dict(resize_positions(weights, local))
    table = LambdaLayer2d(8, scope=None, max_size=(4, 4))
    other = LambdaLayer2d(8, scope=None, max_size=(6, 6), dim_key=8).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for project\.weight"):
        table.load_state_dict(resize_positions(other, table))
    assert resize_positions({}, table) == {}


def test_a_network_of_sequences_grows():
    options = {"num_classes": 2, "in_channels": 3, "stem": "features", "strides": [], "scope": None}
    small = create_model("lambda_encoder_tiny", max_length=8, **options).eval()
    large = create_model("lambda_encoder_tiny", max_length=12, **options).eval()
    large.load_state_dict(resize_positions(small.state_dict(), large))
    assert torch.isfinite(large(torch.randn(1, 12, 3))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4,), (0,)), r"new=\(0,\): expected 1 sizes of at least 1"),
        (((4, 4), (4,)), r"old=\(4, 4\): expected 1 sizes"),
        (((5,), (6,)), r"table has \(7,\) offsets: expected \(9,\), those of old=\(5,\)"),
    ],
)
def test_failures_of_a_table(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_table(torch.zeros(1, 1, 7), *arguments)


def test_failures_of_a_layer():
    layer = LambdaLayer2d(8, scope=None, max_size=(4, 4))
    with pytest.raises(ValueError, match=r"max_size=5: expected 2 sizes, one per dimension"):
        layer.resize((5,))
    with pytest.raises(ValueError, match=r"max_size=\(0, 0\): expected at least one position"):
        layer.resize(0)
