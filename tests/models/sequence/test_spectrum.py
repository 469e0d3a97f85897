import math

import pytest
import torch

from lambda_seq import create_model
from lambda_seq.models.sequence.spectrum import FLOOR, LINEAR, BandPowers


def powers(channels=1, bands=8, stride=16, causal=False):
    return BandPowers(channels, bands, stride, "none", causal).double()


def test_bands_are_averages_of_the_spectrum():
    layer, x = powers(2, 5, 4), torch.randn(1, 30, 2, dtype=torch.float64)
    found = layer(x)[0]
    assert found.shape == (1, 8, 10)
    window = torch.hann_window(19, periodic=False, dtype=torch.float64)[1:-1]
    padded = torch.cat([torch.zeros(8, 2), x[0], torch.zeros(8, 2)])
    for frame, channel in ((0, 0), (3, 1), (7, 0)):
        heard = padded[4 * frame : 4 * frame + 17, channel] * window
        places = torch.arange(17, dtype=torch.float64)
        phases = torch.outer(places, places) * (2 * math.pi / 32)  # of frequencies k / 32
        power = ((heard[:, None] * phases.cos()).sum(0) ** 2 + (heard[:, None] * phases.sin()).sum(0) ** 2) / (
            window.square().sum()
        )
        bands = torch.log(layer.weights(torch.float64) @ power + FLOOR)
        torch.testing.assert_close(found[0, frame, 5 * channel : 5 * channel + 5], bands)


def test_white_noise_has_a_power_of_one_in_each_band():
    torch.manual_seed(0)
    found = powers()(torch.randn(8, 4096, 1, dtype=torch.float64))[0][:, 4:-4].exp()
    torch.testing.assert_close(found.mean((0, 1)), torch.ones(8, dtype=torch.float64), rtol=0.1, atol=0)


def test_a_tone_is_heard_in_the_band_of_its_frequency():
    layer = powers(bands=8, stride=64)
    for band in range(8):
        frequency = LINEAR * math.expm1((band + 0.5) / 8 * math.log1p(0.5 / LINEAR))  # the centre of the band
        tone = torch.cos(2 * math.pi * frequency * torch.arange(1024, dtype=torch.float64))
        assert layer(tone[None, :, None])[0][0, 8].argmax() == band


def test_silence_is_finite_and_so_are_its_gradients():
    layer, x = powers(), torch.zeros(1, 64, 1, dtype=torch.float64, requires_grad=True)
    found, _ = layer(x)
    torch.testing.assert_close(found, torch.full_like(found, math.log(FLOOR)))
    found.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(layer.centre.grad).all()


def test_gradients_are_those_of_differences():
    layer, x = powers(1, 3, 2), torch.randn(1, 9, 1, dtype=torch.float64, requires_grad=True)

    def heard(x, centre, log_width):
        return torch.func.functional_call(layer, {"centre": centre, "log_width": log_width}, (x,))[0]

    assert torch.autograd.gradcheck(heard, (x, layer.centre, layer.log_width))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_powers_are_added_up_in_float32(dtype):
    torch.manual_seed(0)
    layer, x = powers(), torch.randn(2, 500, 1).to(dtype)
    exact = layer(x.double())[0]
    layer.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        found, _ = layer(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4 if dtype == torch.float32 else 0.02)


def test_bands_do_not_decay_and_can_be_made_anew():
    from lambda_seq import param_groups

    model = create_model("lambda_encoder_tiny", stem="spectrum", strides=[8, 2])
    layer = model.stem.layers[0]
    free = {id(parameter) for parameter in param_groups(model)[1]["params"]}
    assert {id(layer.centre), id(layer.log_width)} <= free
    with torch.device("meta"):
        empty = BandPowers(1, 32, 8, "layer", False)
    empty.to_empty(device="cpu").reset_parameters()
    torch.testing.assert_close(empty.centre, layer.centre)
    torch.testing.assert_close(empty.log_width, layer.log_width)
