"""Series of numbers, as the network takes them: logistic regression on what they are like, and on their course."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.labelled import Kind, fit_features, has_labels
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.module import ClassificationData

STEPS = 64  # means along a series, or as many as keep within NUMBERS
NUMBERS = 2048
MOST = 50_000  # training series that are looked at


def applies(data: Data) -> bool:
    """Rows of numbers with classes, of which nothing more is known."""
    return has_labels(data) and data.facts.kind in ("features", "waveform")


def fit(data: ClassificationData) -> Fitted:
    """On statistics of each channel, and on means along the series."""
    channels = int(data.facts.options.get("in_channels", 1))
    steps = max(min(STEPS, NUMBERS // channels), 1)
    kind = Kind(
        "statistics and means along the series",
        "series",
        f"of {channels} channels mean, deviation, extremes, and the same of steps; {steps} means along the series",
    )
    series = data.facts.series
    frontend = None if series is None else series.frontend()
    return fit_features(data, kind, partial(summary, steps=steps, frontend=frontend), MOST)


def summary(
    x: Float[Tensor, "N C"] | Float[Tensor, " N"], steps: int, frontend: nn.Module | None = None
) -> Float[np.ndarray, " d"]:
    """What a series is like: statistics of its values and of its steps, and `steps` means along it.

    Args:
        x: the series.
        steps: means.
        frontend: that standardises it, and fills in what is missing; None for the series as it is.
    """
    x = x.float()[:, None] if x.ndim == 1 else x.float()
    x = x if frontend is None else frontend(x[None])[0][0]
    if not len(x):
        x = x.new_zeros(1, x.shape[1])
    change = x.diff(dim=0) if len(x) > 1 else torch.zeros_like(x)
    course = F.adaptive_avg_pool1d(x.mT[None], steps)[0]  # (C, steps)
    return torch.cat([*_statistics(x), *_statistics(change), course.flatten()]).numpy()


def _statistics(x: Float[Tensor, "N C"]) -> list[Float[Tensor, " C"]]:
    """Mean, deviation, least and greatest of each channel."""
    return [x.mean(0), x.std(0, correction=0), x.amin(0), x.amax(0)]
