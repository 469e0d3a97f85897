import math

import pytest
import torch

from lambda_seq import LambdaLayer1d, LambdaLayer2d
from lambda_seq.layers import MultiScalePosition


def hat(x):
    return (1 - x.abs()).clamp_min(0)


@pytest.mark.parametrize("causal", [False, True])
def test_is_the_equation_in_the_docstring(causal):
    torch.manual_seed(0)
    position = MultiScalePosition(2, 3, max_size=(20,), taps=3, causal=causal).double()
    assert len(position.weights) == 4  # 3 · 2³ ≥ 20
    assert position.reach == 3 * 2**3 - 1
    offsets = torch.arange(-29 if not causal else 0, 30, dtype=torch.float64)
    expected = torch.zeros(2, 3, len(offsets), dtype=torch.float64)
    knots = torch.arange(3) if causal else torch.arange(-2, 3)
    for level, weight in enumerate(position.weights):
        ordered = weight.flip(-1) if causal else weight  # causal: by distance
        for index, knot in enumerate(knots):
            expected += position.scales[0] * 0.5**level * ordered[..., index, None] * hat(offsets / 2**level - knot)
    expected = expected.flip(-1) if causal else expected
    found = position((24,))
    reached = expected[..., -24:] if causal else expected[..., 6:-6]
    torch.testing.assert_close(found, reached.detach())
    # What is beyond reach is left out, and is zero
    assert torch.equal(position((30,)), found)
    assert not expected[..., : len(offsets) - 24 if causal else 6].any()


def test_images_are_bilinear():
    torch.manual_seed(0)
    position = MultiScalePosition(1, 1, max_size=(4, 4), dims=2, taps=2).double()
    fine, coarse = (weight[0, 0] for weight in position.weights)
    assert (fine.shape, coarse.shape) == ((3, 3), (3, 3))
    found = position((4, 4))[0, 0]  # offset 0 at (3, 3)
    assert found.shape == (7, 7)
    first, second = position.scales
    torch.testing.assert_close(found[3, 3], first * fine[1, 1] + second * coarse[1, 1])
    torch.testing.assert_close(found[5, 4], second * (coarse[2, 1] + coarse[2, 2]) / 2)
    torch.testing.assert_close(found[4, 4], first * fine[2, 2] + second * coarse[1:, 1:].mean())
    torch.testing.assert_close(found[6, 6], second * coarse[2, 2] / 4)


@pytest.mark.parametrize("causal", [False, True])
def test_any_two_sizes_agree_to_the_bit(causal):
    torch.manual_seed(0)
    position = MultiScalePosition(1, 2, max_size=(500,), taps=4, causal=causal)
    wide = position((1000,))
    for length in (1, 2, 3, 7, 64, 65, 500, 513):
        narrow = position((length,))
        surplus = wide.shape[-1] - narrow.shape[-1]
        assert torch.equal(narrow, wide.narrow(-1, surplus if causal else surplus // 2, narrow.shape[-1]))


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": (300,)},
        {"max_size": (300,), "causal": True, "decay": 0.7},
        {"max_size": (20, 40), "dims": 2},
        {"scope": (31,)},
        {"scope": (45,), "taps": 4},
        {"scope": (50,), "causal": True, "taps": 3},
        {"scope": (3, 9), "dims": 2},
        {"max_size": (5,), "decay": 1.0, "taps": 1},
    ],
)
def test_energy_at_initialisation(options):
    """The variance of R is a sum of squares: R of unit weights, one at a time, gives it exactly."""
    position = MultiScalePosition(1, 1, **options).double()
    size = (1000,) if len(position.reaches) == 1 else (100, 100)
    energy = 0.0
    with torch.no_grad():
        for weight in position.weights:
            weight.zero_()
        for weight in position.weights:
            for index in range(weight.numel()):
                weight.view(-1)[index] = 1
                energy += position(size).square().sum().item()
                weight.view(-1)[index] = 0
    assert energy == pytest.approx(1, rel=1e-9)


def test_random_weights_have_that_energy():
    torch.manual_seed(0)
    embedding = MultiScalePosition(8, 64, max_size=(1000,))((1000,))
    assert embedding.square().sum(-1).mean().item() == pytest.approx(1, rel=0.05)


def test_takes_few_parameters():
    def count(length):
        return sum(weight.numel() for weight in MultiScalePosition(1, 1, max_size=(length,)).parameters())

    assert count(65536) == 13 * 31
    assert count(65536) - count(32768) == 31
    image = MultiScalePosition(1, 1, max_size=(64, 64), dims=2)
    assert sum(weight.numel() for weight in image.parameters()) == 5 * 49


def test_a_local_scope_leaves_no_weight_unused():
    for scope, causal in [((3,), False), ((45,), False), ((50,), True), ((1,), False)]:
        position = MultiScalePosition(1, 2, scope=scope, causal=causal, taps=4)
        embedding = position((100,))
        assert embedding.shape[-1] == scope[0]
        embedding.square().sum().backward()
        assert all(weight.grad.all() for weight in position.weights)
    position = MultiScalePosition(1, 2, scope=(1, 5), dims=2)
    position((9, 9)).square().sum().backward()
    assert all(weight.grad.all() for weight in position.weights)


@pytest.mark.parametrize("causal", [False, True])
def test_inputs_may_be_longer_than_max_length(causal):
    layer = LambdaLayer1d(8, scope=None, max_length=20, position="multiscale", causal=causal, norm="none")
    assert layer(torch.randn(2, 90, 8)).shape == (2, 90, 8)
    assert LambdaLayer1d(8, scope=None, position="multiscale")(torch.randn(2, 9, 8)).shape == (2, 9, 8)
    image = LambdaLayer2d(8, scope=None, max_size=(4, 4), position="multiscale")
    assert image(torch.randn(2, 8, 9, 5)).shape == (2, 8, 9, 5)


def test_work_is_linear_in_the_size():
    """Numbers that operations return, counted: coarse levels of a short input are as short."""
    position = MultiScalePosition(1, 1, max_size=(2**16,))

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            self.total += result.numel() if isinstance(result, torch.Tensor) else 0
            return result

    def count(length):
        with Count() as counting:
            position((length,))
        return counting.total

    assert count(2**16) < 2.1 * count(2**15)
    assert count(100) < 40 * 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": (4,)}, "scope=4: expected an odd number"),
        ({"max_size": (0,)}, "max_size=0: expected at least one position"),
        ({"taps": 0}, "taps=0: expected at least 1 weight per side; use 16"),
        ({"decay": 0.0}, "decay=0.0: expected a number above 0 and at most 1; use 0.5"),
        ({"decay": 1.5}, "decay=1.5"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        MultiScalePosition(1, 4, **options)


def test_prints_what_it_is():
    assert "levels=11, taps=16, decay=0.5, reach=(16383,)" in repr(MultiScalePosition(1, 4))
    assert math.isclose(MultiScalePosition(1, 4).scales[1] / MultiScalePosition(1, 4).scales[0], 0.5)
