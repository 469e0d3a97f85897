"""Which baseline is for which data."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import import_module

from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.data.base import Data

MODULES = (
    "language",
    "letters",
    "tags",
    "texts",
    "symbols",
    "audio",
    "pictures",
    "series",
)  # of this folder; the first that applies


def fit_baseline(data: Data) -> Fitted:
    """The baseline for these data, fitted on their training split; figures of validation and test.

    Raises:
        ValueError: the data have nothing to predict or to measure on, or one class only.
    """
    begin = time.perf_counter()
    kinds = (import_module(f"lambda_seq.tasks.baselines.{name}") for name in MODULES)
    fit = next((kind.fit for kind in kinds if kind.applies(data)), None)
    if fit is None:
        raise ValueError(
            f"path={getattr(data, 'path', '')!r}: the data ({type(data).__name__}, {data.facts.kind}) have neither "
            "labels nor next tokens that a baseline could predict; give a column of labels: --data.label_column NAME"
        )
    if not (data.tested or "validation" in data.splits):
        raise ValueError(
            f"path={data.path!r} has neither a validation nor a test split to measure a baseline on; hold out a part "
            "of the training rows: --data.validation_fraction 0.1"
        )
    found: Fitted = fit(data)
    rules = data.facts.baselines
    figures = {stage: own | rules.get(stage, {}) for stage, own in found.figures.items()}
    return replace(found, figures=figures, seconds=time.perf_counter() - begin)
