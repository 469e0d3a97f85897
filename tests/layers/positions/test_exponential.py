import math

import pytest
import torch
import torch.nn.functional as F

from lambda_seq import LambdaLayer1d, LambdaLayer2d
from lambda_seq import functional as LF
from lambda_seq.layers import ExponentialPosition


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def complex_terms(position, axis):
    """z_s of a dimension, and coefficients c (*sides, U, K, P + O)."""
    rates = F.softplus(position.raw_rate[axis])
    angles = torch.cat([torch.zeros(position.steady), math.pi * position.raw_frequency[axis].sigmoid()])
    coefficients = position.weight * position.scale
    plain, cosines, sines = coefficients.split([position.steady, position.oscillating, position.oscillating], -1)
    return torch.polar((-rates).exp(), angles.double()), torch.cat([plain + 0j, torch.complex(cosines, -sines)], -1)


def test_is_the_equation_in_the_docstring():
    position = ExponentialPosition(2, 3, max_size=(50,), terms=5).double()
    z, (past, future) = complex_terms(position, 0)
    offsets = torch.arange(-19, 20)
    powers = z ** offsets.abs()[:, None]
    sides = torch.where((offsets <= 0)[:, None, None, None], past, future)  # (2N − 1, U, K, S)
    expected = torch.einsum("duks,ds->ukd", sides, powers).real
    torch.testing.assert_close(position((20,)), expected, rtol=1e-6, atol=1e-8)


def test_images_are_separable_term_by_term():
    position = ExponentialPosition(1, 2, max_size=(8, 9), terms=5, dims=2).double()
    (z, c), (w, _) = complex_terms(position, 0), complex_terms(position, 1)
    embedding = position((4, 6))
    assert embedding.shape == (1, 2, 7, 11)
    for dy, dx in [(0, 0), (0, 3), (-2, 0), (3, 5), (-3, 1), (1, -4), (-1, -1)]:
        expected = (c[int(dy > 0), int(dx > 0)] * z ** abs(dy) * w ** abs(dx)).sum(-1).real
        torch.testing.assert_close(embedding[..., 3 + dy, 5 + dx], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": (60,)},
        {"max_size": (60,), "causal": True, "decay": 1.0},
        {"max_size": (60,), "terms": 6, "oscillating": 0},
        {"max_size": (60,), "terms": 6, "oscillating": 6, "causal": True},
        {"max_size": (6, 9), "dims": 2},
    ],
)
def test_energy_at_initialisation(options):
    """The variance of R is a sum of squares: R of unit weights, one at a time, gives it."""
    position = ExponentialPosition(1, 1, **options).double()
    size = (1500,) if position.dims == 1 else (150, 150)
    weight, energy = position.weight, 0.0
    with torch.no_grad():
        weight.zero_()
        for index in range(weight.numel()):
            weight.view(-1)[index] = 1
            energy += position(size).square().sum().item()
            weight.view(-1)[index] = 0
    assert energy == pytest.approx(1, rel=1e-5)


def test_time_scales_and_periods_cover_the_size():
    position = ExponentialPosition(1, 1, max_size=(1024,), terms=11, oscillating=5, causal=True)
    given = position.streaming(1)
    torch.testing.assert_close(1 / given.rates[:6], 1024 ** torch.linspace(0, 1, 6).double(), rtol=1e-5, atol=0)
    assert 1 / given.rates[6:].max().item() == pytest.approx(4, rel=1e-5)
    torch.testing.assert_close(given.frequencies, math.tau * given.rates[6:], rtol=1e-4, atol=0)


def test_waves_of_images_go_along_columns_rows_and_diagonals():
    position = ExponentialPosition(1, 1, terms=6, oscillating=6, dims=2)
    rows, columns = math.pi * position.raw_frequency.sigmoid()
    ratio = rows / columns
    torch.testing.assert_close(ratio, torch.tensor([1 / 64, 64, 1, 1 / 64, 64, 1]), rtol=0.01, atol=0)


@pytest.mark.parametrize("extreme", [-1e4, 1e4, 1e30])
def test_whatever_is_learned_is_finite_and_decays(extreme):
    position = ExponentialPosition(1, 2, causal=True)
    with torch.no_grad():
        position.raw_rate.fill_(extreme)
        position.raw_frequency.fill_(extreme)
    given = position.streaming(1)
    assert (given.rates > 0).all()
    assert ((-given.rates).exp() < 1).all()
    embedding = position((5000,))
    embedding.sum().backward()
    assert embedding.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in position.parameters())


def test_float32_is_accurate_at_a_million_positions():
    position = ExponentialPosition(1, 1, max_size=(1_000_000,), causal=True, terms=12)
    found = position((1_000_000,)).detach().double()
    exact = position.double()((1_000_000,)).detach()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6 * exact.abs().max().item())
    far = exact[..., :500_000]
    torch.testing.assert_close(found[..., :500_000], far, rtol=0, atol=1e-5 * far.abs().max().item())


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"dim_intra": 2}])
def test_every_parameter_is_used(options):
    layer = LambdaLayer1d(8, 12, scope=None, position="exponential", **options)
    layer(torch.randn(2, 9, 8)).pow(3).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.any(), name


def test_inputs_may_be_longer_than_max_length():
    layer = LambdaLayer1d(8, scope=None, max_length=20, position="exponential")
    assert layer(torch.randn(2, 90, 8)).shape == (2, 90, 8)
    image = LambdaLayer2d(8, scope=None, position="exponential")
    assert image(torch.randn(2, 8, 9, 5)).shape == (2, 8, 9, 5)


def test_learns_a_kernel():
    """A damped oscillation with a slow tail, of scales that the initialisation does not have."""
    places = torch.arange(256)
    wanted = torch.exp(-places / 23) * torch.cos(0.37 * places) + 0.3 * torch.exp(-places / 180)
    position = ExponentialPosition(1, 1, max_size=(256,), causal=True)
    optimizer = torch.optim.Adam(position.parameters(), lr=0.03)
    for _ in range(400):
        loss = (position((256,))[0, 0].flip(-1) - wanted).square().mean() / wanted.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_state_does_not_depend_on_the_context():
    layer = LambdaLayer1d(8, scope=None, position="exponential", causal=True, norm="none")

    def numbers(state):
        parts = (state.values, state.sums, state.content.sums, state.content.norm, state.content.top)
        return [part.untyped_storage().nbytes() for part in parts]

    state = layer.init_state(2)
    empty = numbers(state)
    with torch.no_grad():
        for length in (1, 50, 3000):
            state = layer.step(torch.randn(2, length, 8), state)[1]
            assert numbers(state) == empty
    assert state.seen == 3051


def test_a_symmetric_one_does_not_stream():
    with pytest.raises(ValueError, match="causal=False: only a causal embedding streams"):
        ExponentialPosition(1, 4).streaming(3)
    assert isinstance(ExponentialPosition(1, 4, causal=True).streaming(3), LF.Exponentials)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": 0}, "terms=0: expected at least 1 exponential"),
        ({"terms": 4, "oscillating": 5}, "oscillating=5: expected 0 to terms=4"),
        ({"decay": 0.0}, "decay=0.0: expected a number above 0"),
        ({"max_size": (0,)}, "max_size=0: expected at least one position"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ExponentialPosition(1, 4, **options)


def test_prints_what_it_is():
    assert "terms=8 + 8 oscillating, decay=0.707, causal" in repr(ExponentialPosition(1, 4, causal=True))
