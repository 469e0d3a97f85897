"""The changes of pictures that RandAugment and TrivialAugment choose from.

E. Cubuk et al., "RandAugment", 2020, whose ranges are those of "AutoAugment" (2019), table 6. A strength of 0 changes
nothing, 1 as much as there is. In the published code factors go from 0.1 to 1.9, so that half the strength leaves a
picture as it is, and solarizing becomes less; here all changes grow, as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Change = Callable[[Tensor, Tensor], Tensor]  # pictures (B, C, H, W) from 0 to 1, strengths (B,) from 0 to 1

TURN = 30.0  # degrees
SLOPE = 0.3  # of what stood upright
MOVE = 150 / 331  # of width or height
FACTOR = 0.9  # colours, contrast, brightness and sharpness by 1 ± as much
BITS = 4  # of 8 that are lost


def identity(x: Tensor, strength: Tensor) -> Tensor:
    """Nothing."""
    return x


def auto_contrast(x: Tensor, strength: Tensor) -> Tensor:
    """Each channel from black to white; one of a single value as it is. The same at all strengths."""
    least, most = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(most > least, (x - least) / (most - least).clamp_min(1e-6), x)


def equalize(x: Tensor, strength: Tensor) -> Tensor:
    """As many pixels of each value. The same at all strengths."""
    from kornia import enhance

    return enhance.equalize(x)


def rotate(x: Tensor, strength: Tensor) -> Tensor:
    """To the left or right."""
    from kornia.geometry import transform

    return transform.rotate(x, _signed(strength) * TURN)


def shear_x(x: Tensor, strength: Tensor) -> Tensor:
    """Leaning left or right."""
    from kornia.geometry import transform

    slope = _signed(strength) * SLOPE
    return transform.shear(x, torch.stack([slope, torch.zeros_like(slope)], 1))


def shear_y(x: Tensor, strength: Tensor) -> Tensor:
    """Leaning up or down."""
    from kornia.geometry import transform

    slope = _signed(strength) * SLOPE
    return transform.shear(x, torch.stack([torch.zeros_like(slope), slope], 1))


def translate_x(x: Tensor, strength: Tensor) -> Tensor:
    """Left or right."""
    from kornia.geometry import transform

    places = _signed(strength) * MOVE * x.shape[3]
    return transform.translate(x, torch.stack([places, torch.zeros_like(places)], 1))


def translate_y(x: Tensor, strength: Tensor) -> Tensor:
    """Up or down."""
    from kornia.geometry import transform

    places = _signed(strength) * MOVE * x.shape[2]
    return transform.translate(x, torch.stack([torch.zeros_like(places), places], 1))


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """Fewer bits of each value."""
    step = 2 ** (strength * BITS).round()[:, None, None, None]
    return (x * 255).round().div(step, rounding_mode="floor") * step / 255


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """The brightest values upside down, at full strength all."""
    return torch.where(x > 1 - strength[:, None, None, None], 1 - x, x)


def color(x: Tensor, strength: Tensor) -> Tensor:
    """Paler or richer colours."""
    from kornia import enhance

    return enhance.adjust_saturation_with_gray_subtraction(x, 1 + _signed(strength) * FACTOR)


def contrast(x: Tensor, strength: Tensor) -> Tensor:
    """Less or more distance from the mean."""
    from kornia import enhance

    return enhance.adjust_contrast_with_mean_subtraction(x, 1 + _signed(strength) * FACTOR)


def brightness(x: Tensor, strength: Tensor) -> Tensor:
    """Darker or brighter."""
    return (x * (1 + _signed(strength) * FACTOR)[:, None, None, None]).clamp(0, 1)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Blurred or sharpened; pictures of fewer than three pixels a side are left as they are."""
    from kornia import enhance

    return enhance.sharpness(x, 1 + _signed(strength) * FACTOR) if min(x.shape[2:]) >= 3 else x


GREY_CHANGES: tuple[Change, ...] = (
    identity,
    auto_contrast,
    equalize,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    posterize,
    solarize,
    contrast,
    brightness,
    sharpness,
)
CHANGES: tuple[Change, ...] = (*GREY_CHANGES, color)


def _signed(strength: Tensor) -> Tensor:
    """Either direction, as often, for each picture."""
    return torch.where(torch.rand(len(strength)) < 0.5, -1.0, 1.0).to(strength.device) * strength
