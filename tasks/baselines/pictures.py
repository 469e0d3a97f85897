"""Pictures, as such or as sequences of pixels: logistic regression on pixels."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.labelled import Kind, fit_features, has_labels
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.images.data import ImageData
from lambda_seq.tasks.data.module import ClassificationData

EDGE = 32  # pixels of a height or width; longer ones are averaged
MOST = 50_000  # training pictures that are looked at


def applies(data: Data) -> bool:
    """Pictures with classes."""
    return has_labels(data) and (data.facts.kind == "image" or data.facts.pixels is not None)


def fit(data: ClassificationData) -> Fitted:
    """On the pixels as the data module reads them, of at most 32 × 32."""
    size = None
    if data.facts.kind == "image":
        size = tuple(data.facts.options.get("image_size", ())) or None
    elif isinstance(data, ImageData):
        size = data.decoder.size
    edges = "" if size is None else " of " + " × ".join(str(min(edge, EDGE)) for edge in size)
    kind = Kind("pixels", "pictures", f"pixels{edges}")
    return fit_features(data, kind, partial(pixels, size=size), MOST)


def pixels(
    x: UInt8[Tensor, "C H W"] | UInt8[Tensor, "N C"], size: tuple[int, ...] | None = None
) -> Float[np.ndarray, " d"]:
    """The pixels of a picture, or of the same in reading order, averaged where it is larger than `EDGE`.

    Args:
        x: a picture, or pixels in reading order.
        size: height and width; None for pixels of which they are not known, which stay as they are.
    """
    if x.ndim == 2 and size is not None:
        x = x.mT.unflatten(1, size)
    if x.ndim == 3 and max(x.shape[1:]) > EDGE:
        height, width = (min(edge, EDGE) for edge in x.shape[1:])
        x = F.adaptive_avg_pool2d(x[None].float(), (height, width))[0]
    return x.to(torch.float32).flatten().numpy()
