"""Pictures and clips whose bytes are in tables, as pandas and datasets write them."""

import io

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image

from lambda_seq.tasks.data import AudioData, ImageData

LABELS = ["dark", "light"] * 4


def png(grey):
    stream = io.BytesIO()
    Image.new("L", (6, 5), grey).save(stream, "png")
    return stream.getvalue()


def flac(grey):
    stream = io.BytesIO()
    soundfile.write(stream, np.full(40, grey / 256), 8000, format="FLAC")
    return stream.getvalue()


FILES = [png(grey) for grey in range(0, 80, 10)]
CLIPS = [flac(grey) for grey in range(0, 80, 10)]
FORMS = {
    "pandas, bytes": lambda cells, kind: pd.DataFrame({kind: cells, "label": LABELS}),
    "pandas, bytes and path": lambda cells, kind: pd.DataFrame(
        {kind: [{"bytes": cell, "path": f"{row}.x"} for row, cell in enumerate(cells)], "label": LABELS}
    ),
    "datasets, bytes": lambda cells, kind: datasets.Dataset.from_dict({kind: cells, "label": LABELS}),
    "datasets, its own type": lambda cells, kind: datasets.Dataset.from_dict(
        {kind: cells, "label": LABELS}
    ).cast_column(kind, datasets.Image() if kind == "image" else datasets.Audio(decode=False)),
}


def rows(data):
    return list(data.rows_as_items(data.split("train"), "train"))


@pytest.mark.parametrize("form", FORMS)
def test_pictures(tmp_path, form):
    FORMS[form](FILES, "image").to_parquet(tmp_path / "a.parquet")
    data = ImageData(str(tmp_path / "a.parquet"), validation_fraction=0, test_fraction=0)
    items = rows(data)
    assert data.labels == ["dark", "light"]
    assert [item["x"].unique().tolist() for item in items] == [[grey] for grey in range(0, 80, 10)]
    assert [item["label"] for item in items] == [0, 1] * 4
    assert tuple(items[0]["x"].shape) == (1, 5, 6)


@pytest.mark.parametrize("form", FORMS)
def test_clips(tmp_path, form):
    FORMS[form](CLIPS, "audio").to_parquet(tmp_path / "a.parquet")
    data = AudioData(str(tmp_path / "a.parquet"), validation_fraction=0, test_fraction=0, standardize="none")
    items = rows(data)
    assert [item["label"] for item in items] == [0, 1] * 4
    for grey, item in zip(range(0, 80, 10), items, strict=True):
        torch.testing.assert_close(item["x"], torch.full((40,), grey / 256), atol=1e-4, rtol=0)
