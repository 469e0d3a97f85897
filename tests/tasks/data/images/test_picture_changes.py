"""Each change of pictures, by its strength."""

import pytest
import torch

from lambda_seq.tasks.data.images.changes import CHANGES, GREY_CHANGES

SAME = ("identity", "auto_contrast", "equalize")  # at all strengths
GREATEST = {"translate_x", "translate_y"}  # past which what is moved in looks no different


def pictures(channels=3):
    patches = torch.rand(32, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(patches, size=24, mode="bicubic").clamp(0, 1)
    return (x * 255).round() / 255


def changed(change, x, strength):
    torch.manual_seed(0)  # the same directions
    return change(x, torch.full((len(x),), strength))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_grows_from_nothing(change):
    x = pictures()
    found = [float((changed(change, x, strength) - x).abs().mean()) for strength in (0, 0.1, 0.25, 0.5, 0.75, 0.97)]
    if change.__name__ in SAME:
        assert len(set(found)) == 1
        return
    assert found[0] < 1e-6
    assert found == sorted(found)
    assert found[-1] > 1.5 * found[3] if change.__name__ not in GREATEST else found[-1] > found[3]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (9, 1), (5, 7)])
@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_flat_and_tiny_pictures_stay_numbers(change, size, level):
    x = torch.full((4, 3, *size), level)
    for strength in (0.0, 0.5, 1.0):
        found = changed(change, x, strength)
        assert found.shape == x.shape
        assert ((found > -1e-5) & (found < 1 + 1e-5)).all()


def test_values():
    """What the paper's table says: 30 degrees, a slope of 0.3, 150 of 331 pixels, 4 bits, factors of 0.1 and 1.9."""
    named = {change.__name__: change for change in CHANGES}
    x = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 1, 5)
    one = torch.ones(1)
    assert torch.equal(named["solarize"](x, one / 2), torch.tensor([0, 0.25, 0.5, 0.25, 0]).view(1, 1, 1, 5))
    assert torch.equal(named["solarize"](x, one), torch.where(x > 0, 1 - x, x))
    grey = torch.full((1, 1, 1, 1), 173 / 255)
    assert (named["posterize"](grey, one) * 255).round() == 160
    assert (named["posterize"](grey, one / 2) * 255).round() == 172
    levels = torch.stack([named["brightness"](grey, one) for _ in range(20)])
    assert sorted({round(float(level) * 255, 1) for level in levels.flatten()}) == [17.3, 255.0]
    row = torch.zeros(1, 1, 1, 331)
    row[..., 165] = 1
    places = {int(named["translate_x"](row, one).argmax()) for _ in range(20)}
    assert places == {15, 315}


def test_grey_pictures_get_no_colours():
    assert {change.__name__ for change in CHANGES} - {change.__name__ for change in GREY_CHANGES} == {"color"}
    for change in GREY_CHANGES:
        assert changed(change, pictures(1), 0.5).shape == (32, 1, 24, 24)
