"""Audio: logistic regression on statistics of log-mel frames."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lambda_seq.inference.frontends import AudioFrontend, LogMelOptions
from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.labelled import Kind, fit_features, has_labels
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.facts import Audio

BANDS = (64, 40, 24, 12, 6)  # mel bands, the first that the sampling rate has room for
PARTS = 4  # of a clip, whose means tell what comes when
SECONDS = 5 * 3600  # of training clips that are listened to


def applies(data: Data) -> bool:
    """Clips with classes."""
    return has_labels(data) and data.facts.audio is not None


def fit(data: ClassificationData) -> Fitted:
    """On frames of clips that are standardised as the network hears them."""
    audio: Any = data.facts.audio
    frontend, bands = _frontend(audio)
    length = (audio.max_length or audio.sampling_rate) / audio.sampling_rate
    kind = Kind(
        "log-mel statistics",
        "clips",
        f"of {bands} log-mel bands mean and deviation, those of their changes, and means of {PARTS} parts",
    )
    return fit_features(data, kind, partial(statistics, frontend=frontend), max(int(SECONDS / length), 1))


def _frontend(audio: Audio) -> tuple[AudioFrontend, int]:
    """Samples to log-mel frames, and their number of bands: that of the data, or what the sampling rate has room for.

    Raises:
        ValueError: it has room for none.
    """
    given = {name: value for name, value in audio.to_dict().items() if not name.startswith("log_mel")}
    for bands in (audio.n_mels,) if audio.n_mels else BANDS:
        sizes = LogMelOptions(bands, audio.n_fft, audio.hop_length).sizes(audio.sampling_rate)
        try:
            return AudioFrontend(**given | sizes | {"representation": "log_mel"}), bands
        except ValueError:
            if bands == BANDS[-1] or audio.n_mels:
                raise
    raise ValueError(f"sampling_rate={audio.sampling_rate}: expected a rate that has room for {BANDS[-1]} mel bands")


def statistics(x: Float[Tensor, " N"], frontend: AudioFrontend) -> Float[np.ndarray, " d"]:
    """Of a clip's log-mel frames (M, bands): mean and deviation, those of their changes, and means of parts in turn."""
    frames = frontend(x[None])[0][0]  # (M, bands)
    change = frames.diff(dim=0) if len(frames) > 1 else torch.zeros_like(frames)
    parts = F.adaptive_avg_pool1d(frames.mT[None], PARTS)[0]  # (bands, parts)
    found = [frames.mean(0), frames.std(0, correction=0), change.abs().mean(0), change.std(0, correction=0)]
    return torch.cat([*found, parts.flatten()]).numpy()
