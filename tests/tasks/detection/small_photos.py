"""A folder of small photos of bright blocks, with COCO's JSON, and options that make a detector small."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

TINY = {"blocks": [1, 1], "width": 8, "scope": 3, "dim_key": 4, "heads": 2, "stem": "imagenet", "placement": "CL"}
SMALL_HEADS = {"channels": 8, "head_width": 16, "anchor_scale": 4.0, "samples": 16}
CATEGORIES = [{"id": 7, "name": "wide"}, {"id": 3, "name": "tall"}]  # with gaps, and in no order
KINDS = {3: (10, 20), 7: (20, 10)}  # height and width


def photo(random, height, width, kinds):
    """Pixels, and an annotation of each block."""
    pixels = random.integers(0, 60, (height, width, 3)).astype(np.uint8)
    objects = []
    for category in kinds:
        rows, columns = KINDS[category]
        top, left = int(random.integers(0, height - rows + 1)), int(random.integers(0, width - columns + 1))
        pixels[top : top + rows, left : left + columns] = random.integers(150, 210, (rows, columns, 3))
        outline = [left, top, left + columns, top, left + columns, top + rows, left, top + rows]
        objects.append(
            {
                "category_id": category,
                "bbox": [left, top, columns, rows],
                "area": rows * columns,
                "iscrowd": 0,
                "segmentation": [outline],
            }
        )
    return pixels, objects


def coco(folder: Path, counts: dict[str, int], masks: bool = True, seed: int = 0) -> Path:
    """folder/annotations/instances_SPLIT.json and folder/SPLIT/00.png; the last photo of a split is empty."""
    random = np.random.default_rng(seed)
    (folder / "annotations").mkdir(parents=True)
    for split, count in counts.items():
        (folder / split).mkdir()
        images, annotations = [], []
        for row in range(count):
            height, width = (int(side) for side in random.integers(40, 65, 2))
            kinds = [] if row == count - 1 else [int(kind) for kind in random.choice([3, 7], random.integers(1, 4))]
            pixels, objects = photo(random, height, width, kinds)
            Image.fromarray(pixels).save(folder / split / f"{row:02}.png")
            images.append({"id": 100 + row, "file_name": f"{row:02}.png", "height": height, "width": width})
            for one in objects:
                if not masks:
                    del one["segmentation"]
                annotations.append({"id": len(annotations) + 1, "image_id": 100 + row, **one})
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        write(folder / "annotations" / f"instances_{split}.json", content)
    return folder


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def write(file: Path, content) -> None:
    file.write_text(json.dumps(content))


def options(prefix: str, given: dict) -> tuple[str, ...]:
    """Words of a command line."""
    return tuple(f"--{prefix}.{name}={value}" for name, value in given.items())
