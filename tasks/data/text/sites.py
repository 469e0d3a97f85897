"""Generated DNA with and without a binding site of a protein, on either strand: sequences to begin with.

The site is like those of CTCF, CCACCAGGGGGCGC or nearly so (JASPAR, matrix MA0139.1). Sequences without one have the
same letters in another order there.
"""

from __future__ import annotations

import datasets
import numpy as np

SITES = "generated:sites"
COUNTS = {"train": 1_000, "validation": 200, "test": 300}
LENGTHS = (100, 200)  # bases
SITE = "CCACCAGGGGGCGC"
CHANGED = 0.1  # share of its bases that are drawn at random
OPPOSITE = str.maketrans("ACGT", "TGCA")


def sites() -> dict[str, datasets.Dataset]:
    """The same sequences each time, half of them with a site; columns "sequence" and "label"."""
    random = np.random.default_rng(0)
    found = {}
    for split, count in COUNTS.items():
        labels = [("none", "site")[row % 2] for row in range(count)]
        rows = [{"sequence": sequence(label, random), "label": label} for label in labels]
        found[split] = datasets.Dataset.from_list(rows, split=datasets.NamedSplit(split))
    return found


def sequence(label: str, random: np.random.Generator) -> str:
    """Bases at random, and among them a site, or its letters in disorder."""
    bases = random.choice(list("ACGT"), int(random.integers(LENGTHS[0], LENGTHS[1] + 1)))
    site = np.array(list(SITE))
    if label == "none":
        site = random.permutation(site)
    others = random.choice(list("ACGT"), len(site))
    site = np.where(random.uniform(size=len(site)) < CHANGED, others, site)
    start = int(random.integers(len(bases) - len(site) + 1))
    bases[start : start + len(site)] = site
    found = "".join(bases)
    return found if random.random() < 0.5 else found[::-1].translate(OPPOSITE)
