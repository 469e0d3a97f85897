"""Small generated data, and options that make networks and runs small."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

TINY_RESNET = (
    "--model.options.blocks=[1]",
    "--model.options.placement=L",
    "--model.options.width=8",
    "--model.options.heads=2",
    "--model.options.scope=3",
)
TINY_ENCODER = (
    "--model.options.dim=8",
    "--model.options.depth=1",
    "--model.options.heads=2",
    "--model.options.scope=3",
)
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
SHORT = ("--trainer.max_epochs=1", *QUIET)


def picture(label: int, rng: np.random.Generator, size: tuple[int, int] = (8, 8), channels: int = 3) -> Image.Image:
    """Noise with a bright upper (0) or lower (1) half."""
    pixels = rng.integers(0, 60, (*size, channels), dtype=np.uint8)
    half = size[0] // 2
    pixels[half * label : half * (label + 1)] += 150
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def image_folder(folder: Path, counts: dict[str, int], names=("up", "down"), **options) -> Path:
    """folder/SPLIT/NAME/00.png for each split; without split folders if the only split is ""."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label, name in enumerate(names):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                picture(label, rng, **options).save(folder / split / name / f"{index:02}.png")
    return folder


def texts(count: int) -> list[dict]:
    """Texts of growing length about cats or dogs."""
    return [
        {"text": f"{'cat' if row % 2 else 'dog'} naïve " * (1 + row % 7), "label": "feline" if row % 2 else "canine"}
        for row in range(count)
    ]


def write_jsonl(file: Path, rows: list[dict]) -> Path:
    """One object per line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
