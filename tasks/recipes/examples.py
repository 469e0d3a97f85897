"""What recipes choose for some data, as tables: python -m lambda_seq.tasks.recipes.examples

The page on data shows them, and a test sees that it shows those of today.
"""

from __future__ import annotations

from lambda_seq.tasks.recipes import audio, pictures, series, texts
from lambda_seq.tasks.recipes.choosing import shown
from lambda_seq.tasks.recipes.registry import RECIPES, Measured

EXAMPLES: dict[str, dict[str, Measured]] = {
    "texts": {
        "500 headlines, 60 bytes": texts.Texts(rows=500, median=60, long=90, longest=140),
        "1,800 articles, 2 kB": texts.Texts(rows=1_800, median=2_000, long=4_500, longest=25_000),
        "20,500 reviews, 1 kB": texts.Texts(rows=20_500, median=980, long=3_400, longest=13_700),
        "500 reports, 16 kB": texts.Texts(rows=500, median=16_000, long=60_000, longest=140_000),
    },
    "audio": {
        "2,400 digits, 8 kHz, 0.4 s": audio.Clips(rows=2_400, rate=8_000, median=0.42, long=0.7, longest=2.3),
        "900 words, 16 kHz, 1 s": audio.Clips(rows=900),
        "240 sounds, 22 kHz, 5 s": audio.Clips(rows=240, rate=22_050, median=5.0, long=5.0, longest=5.0),
    },
    "pictures": {
        "1,300 of 8 × 8": pictures.Images(rows=1_300, height=8, width=8),
        "20,000 of 28 × 28": pictures.Images(rows=20_000, height=28, width=28),
        "900 photos, 480 × 640": pictures.Images(rows=900, height=480, width=640, differ=True),
    },
    "series": {
        "200 of 100 steps": series.Courses(rows=200),
        "3,000 of 1,000 steps": series.Courses(rows=3_000, channels=6, median=1_000, long=1_000, longest=1_000),
        "20,000 of 10,000 steps": series.Courses(rows=20_000, median=9_000, long=10_000, longest=10_000),
    },
}


def table(recipe: str) -> str:
    """A column for each example, and a line for each option that is chosen for any."""
    found = {
        name: {choice.option: shown(choice.value) for choice in RECIPES[recipe].choose(measured)}
        for name, measured in EXAMPLES[recipe].items()
    }
    options = [name for name in RECIPES[recipe].options if any(name in chosen for chosen in found.values())]
    lines = [f"| `{recipe}` | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for option in options:
        lines.append(f"| `{option}` | {' | '.join(chosen.get(option, '') for chosen in found.values())} |")
    return "\n".join(lines)


def tables() -> str:
    """Those of all recipes."""
    return "\n\n".join(map(table, EXAMPLES))


if __name__ == "__main__":
    print(tables())
