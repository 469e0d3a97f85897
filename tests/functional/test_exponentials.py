"""Sums of exponentials: the definition in complex numbers, precision at a million positions, kernels and streams."""

import math

import pytest
import torch

from lambda_seq import functional as LF
from lambda_seq.functional import exponentials


def random_exponentials(steady=3, oscillating=2, *, intra=1, dim_key=4, slowest=100.0, dtype=torch.float64):
    """Time scales from 1 to `slowest`, coefficients that fall with them."""
    count = steady + oscillating
    scales = slowest ** torch.rand(count, dtype=torch.float64)
    falling = torch.cat([scales, scales[steady:]]).rsqrt()
    coefficients = torch.randn(intra, dim_key, count + oscillating, dtype=torch.float64) * falling
    frequencies = math.pi * torch.rand(oscillating, dtype=torch.float64)
    return LF.Exponentials(*(part.to(dtype) for part in (1 / scales, frequencies, coefficients)))


def complex_kernel(given, length):
    """Re Σ_s c_s z_s^d in complex numbers, distance length − 1 first."""
    oscillating = given.frequencies.shape[0]
    steady = given.rates.shape[0] - oscillating
    z = torch.polar((-given.rates).exp(), torch.cat([torch.zeros(steady), given.frequencies]).double())
    plain, cosines, sines = given.coefficients.split([steady, oscillating, oscillating], -1)
    c = torch.cat([plain + 0j, torch.complex(cosines, -sines)], -1)
    powers = z ** torch.arange(length - 1, -1, -1)[:, None]  # (N, P + O)
    return torch.einsum("uks,ns->ukn", c, powers).real


@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 1500])
@pytest.mark.parametrize(("steady", "oscillating"), [(3, 2), (4, 0), (0, 3)])
def test_kernel_is_the_definition(length, steady, oscillating):
    given = random_exponentials(steady, oscillating, intra=2)
    found = given.kernel(length)
    assert found.shape == (2, 4, length)
    torch.testing.assert_close(found, complex_kernel(given, length), rtol=1e-10, atol=1e-12)


def test_float32_kernels_are_accurate_at_a_million_positions():
    given = random_exponentials(4, 4, dim_key=2, slowest=1e6, dtype=torch.float32)
    length = 1_000_000
    found = given.kernel(length).double()
    exact = LF.Exponentials(*(part.double() for part in vars(given).values())).kernel(length)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-6 * exact.abs().max().item())
    # ... and so is the far half by itself, where only slow terms are left
    far = exact[..., : length // 2]
    torch.testing.assert_close(found[..., : length // 2], far, rtol=0, atol=2e-6 * far.abs().max().item())
    assert far.abs().max() > 1e-4


def test_slowest_rates_do_not_blow_up():
    rates = torch.tensor([1e-9, 1e-9])
    given = LF.Exponentials(rates, torch.tensor([3.0]), torch.ones(1, 1, 3))
    assert given.kernel(100_000).abs().max() <= 3


def test_gradients():
    given = random_exponentials(2, 2)
    parts = [part.requires_grad_() for part in vars(given).values()]
    assert torch.autograd.gradcheck(lambda *parts: LF.Exponentials(*parts).kernel(7), parts)


@pytest.mark.parametrize("lengths", [[1], [5], [1, 1, 1, 1, 20], [700, 1, 2000, 3]])
def test_sums_are_those_of_the_definition(lengths):
    given = random_exponentials(2, 2, intra=2)
    value = torch.randn(2, 2, sum(lengths), 3, dtype=torch.float64)
    sums = given.empty(value)
    for part in value.split(lengths, 2):
        sums = given.advance(sums, part)
    distances = torch.arange(sum(lengths) - 1, -1, -1)
    powers = exponentials.basis(given.rates, given.frequencies, distances)
    torch.testing.assert_close(sums, torch.einsum("ns,bunv->busv", powers, value), rtol=1e-9, atol=1e-10)


def test_reading_is_the_product_with_the_kernel():
    given = random_exponentials(2, 2, intra=2)
    value = torch.randn(2, 2, 30, 3, dtype=torch.float64)
    query = torch.randn(2, 3, 1500, 4, dtype=torch.float64)
    sums = given.advance(given.empty(value), value)
    kernel = given.kernel(1530)
    gathered = torch.stack([kernel[..., 1500 - 1 - t : 1530 - 1 - t] for t in range(1500)], 2)  # (U, K, T, N)
    expected = torch.einsum("bhtk,uktn,bunv->bhtv", query, gathered, value)
    torch.testing.assert_close(given.read(query, sums, 1), expected, rtol=1e-9, atol=1e-10)


def test_autocast_does_not_touch_precision():
    given = random_exponentials(dtype=torch.float32)
    value, query = torch.randn(1, 1, 40, 3), torch.randn(1, 2, 5, 4)
    sums = given.advance(given.empty(value), value)
    plain = given.kernel(30), sums, given.read(query, sums, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = given.advance(given.empty(value), value)
        cast = given.kernel(30), sums, given.read(query, sums, 1)
    for found, expected in zip(cast, plain, strict=True):
        assert torch.equal(found, expected)
