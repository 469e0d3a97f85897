"""ListOps, generated: nested lists of operators on digits, whose value is a digit.

The task of N. Nangia, S. R. Bowman, ListOps: A Diagnostic Dataset for Latent Tree Learning, NAACL 2018, with the
lengths of Y. Tay et al., Long Range Arena, ICLR 2021. An example, whose value is 4:

    [MAX 2 [MIN 4 7 ] 0 [SM 5 8 ] ]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import datasets
import numpy as np
from jaxtyping import Int

from lambda_seq.inference.texts import Reading
from lambda_seq.tasks.data.batches import Batch
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.data.reading.cache import cached
from lambda_seq.tasks.data.reading.corpus import Corpus
from lambda_seq.tasks.data.reading.documents import TextItems, pad
from lambda_seq.tasks.data.reading.sources import load_rows
from lambda_seq.tasks.facts import Facts

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
TOKENS = ("<pad>", "<unk>", "<eos>", *OPERATORS, "]", *map(str, range(10)))  # 18, in the order of their ids
END, FIRST, CLOSE, ZERO = 2, 3, 7, 8  # ids of the end, of the first operator, of the bracket, of the digit 0
BRANCHING = 0.25  # probability of an operator
DRAWN = 20_000  # trees that are drawn together
PADDED = 64  # batches are padded to a multiple of this


@dataclass(frozen=True)
class Shape:
    """Which trees there are; the defaults are those of Long Range Arena.

    Args:
        shortest, longest: bounds of the length of a tree, which is greater than the one and smaller than the other.
        deepest: depth at which all nodes are digits; the root's is 1.
        most: arguments of an operator, of which it has 2 at least.
    """

    shortest: int = 500
    longest: int = 2000
    deepest: int = 10
    most: int = 10


@dataclass
class Level:
    """The nodes of one depth, in the order of their parents: those of one parent are neighbours."""

    tree: Int[np.ndarray, " n"]  # each node's tree
    operator: Int[np.ndarray, " n"]  # 0..3, of MIN, MAX, MED, SM
    digit: Int[np.ndarray, " n"]
    children: Int[np.ndarray, " n"]  # 0 of a digit

    @property
    def branch(self) -> np.ndarray:
        """Which nodes are operators."""
        return self.children > 0

    @property
    def first(self) -> Int[np.ndarray, " operators"]:
        """Each operator's first child, as a place in the next level."""
        counts = self.children[self.branch]
        return np.cumsum(counts) - counts

    def of(self, kept: np.ndarray) -> Level:
        """The nodes of the kept trees."""
        chosen = kept[self.tree]
        return Level(self.tree[chosen], self.operator[chosen], self.digit[chosen], self.children[chosen])


def draw_trees(
    random: np.random.Generator, count: int, shape: Shape
) -> tuple[list[bytes], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Draw `count` trees, and keep those of the right length.

    A node at depth d < deepest is an operator with probability 1/4, each of the four alike, of 2 to `most` arguments;
    else it is a digit, each of the ten alike. The length of a tree counts digits, operators and brackets. All nodes of
    a depth are drawn at once.

    Returns:
        tokens (each id a byte, the last the end), values, and lengths without the end.
    """
    levels = _grow(random, count, shape)
    lengths = _lengths(levels)
    whole = lengths[0]
    kept = (whole > shape.shortest) & (whole < shape.longest)
    levels = [level.of(kept) for level in levels]
    lengths = _lengths(levels)
    values = _values(levels)
    sizes = lengths[0] + 1
    ends = np.cumsum(sizes)
    page = np.full(ends[-1] if len(ends) else 0, END, np.uint8)
    number = np.cumsum(kept) - 1  # of each kept tree
    start = np.zeros(len(sizes), np.int64)  # of each node in its tree
    for depth, level in enumerate(levels):
        place = (ends - sizes)[number[level.tree]] + start
        branch = level.branch
        page[place] = np.where(branch, FIRST + level.operator, ZERO + level.digit)
        page[place[branch] + lengths[depth][branch] - 1] = CLOSE
        if not branch.any():
            break  # all deeper levels are empty
        below = lengths[depth + 1]
        before = np.cumsum(below) - below  # lengths of all earlier nodes
        start = np.repeat(start[branch] + 1 - before[level.first], level.children[branch]) + before
    text = page.tobytes()
    trees = [text[end - size : end] for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]
    return trees, values, lengths[0]


def _grow(random: np.random.Generator, count: int, shape: Shape) -> list[Level]:
    """Trees level by level. One that has too many nodes already grows no further, and stays too long."""
    levels = []
    tree = np.arange(count)
    nodes = np.ones(count, np.int64)  # of each tree
    for depth in range(1, shape.deepest + 1):
        branch = (random.random(len(tree)) <= BRANCHING) & (depth < shape.deepest) & (nodes[tree] < shape.longest)
        children = np.where(branch, random.integers(2, shape.most + 1, len(tree)), 0)
        levels.append(Level(tree, random.integers(0, 4, len(tree)), random.integers(0, 10, len(tree)), children))
        tree = np.repeat(tree, children)
        nodes += np.bincount(tree, minlength=count)
    return levels


def _lengths(levels: list[Level]) -> list[Int[np.ndarray, " n"]]:
    """Lengths of each level's nodes: 1 of a digit, 2 more than those of its arguments of an operator."""
    lengths: list[np.ndarray] = []
    for level in reversed(levels):
        own = np.ones(len(level.tree), np.int64)
        if level.branch.any():
            own[level.branch] = 2 + np.add.reduceat(lengths[-1], level.first)
        lengths.append(own)
    return lengths[::-1]


def _values(levels: list[Level]) -> Int[np.ndarray, " trees"]:
    """Values of the trees. MED is the median, halves rounded down; SM is the sum modulo 10."""
    below = np.zeros(0, np.int64)
    for level in reversed(levels):
        values = level.digit.copy()
        branch = level.branch
        if branch.any():
            first, counts, operator = level.first, level.children[branch], level.operator[branch]
            found = np.stack(
                [
                    np.minimum.reduceat(below, first),
                    np.maximum.reduceat(below, first),
                    _medians(below, first, counts),
                    np.add.reduceat(below, first) % 10,
                ]
            )  # (4, operators)
            values[branch] = found[operator, np.arange(len(operator))]
        below = values
    return below


def _medians(values: np.ndarray, first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    place = np.arange(counts.max())
    there = place < counts[:, None]  # (operators, most arguments)
    row = np.where(there, values[np.where(there, first[:, None] + place, 0)], 10)  # 10 sorts behind the digits
    row.sort(1)
    lower, upper = ((counts - 1) // 2)[:, None], (counts // 2)[:, None]
    return ((np.take_along_axis(row, lower, 1) + np.take_along_axis(row, upper, 1)) // 2)[:, 0]


def generate(count: int, seed: int, shape: Shape) -> tuple[list[bytes], Int[np.ndarray, " count"]]:
    """`count` distinct trees and their values; fewer trees of the same seed and shape are the first of them.

    Raises:
        ValueError: hardly any tree has such a length.
    """
    trees: list[bytes] = []
    values: list[np.ndarray] = []
    seen: set[bytes] = set()
    rounds = 0
    while len(trees) < count:
        found, value, _ = draw_trees(np.random.default_rng([seed, rounds]), DRAWN, shape)
        rounds += 1
        new = []
        for place, tree in enumerate(found):
            digest = hashlib.blake2b(tree, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                trees.append(tree)
                new.append(place)
        values.append(value[new])
        if len(trees) < rounds * DRAWN / 100_000:
            raise ValueError(f"{shape}: fewer than one tree of 100,000 is of such a length; give a wider range")
    return trees[:count], np.concatenate(values)[:count]


def to_text(tokens: Int[np.ndarray, " N"] | bytes) -> str:
    """A tree as it is written, without padding and end."""
    return " ".join(TOKENS[token] for token in tokens if token not in (0, END))


def root_operator_baseline(train: Rows, rows: Rows) -> float:
    """Accuracy on `rows` of answering what most training trees with the same operator at the root have as value."""
    roots, labels = _roots(train), np.asarray(train.labels)
    answers = [np.bincount(labels[roots == root], minlength=10).argmax() for root in range(len(OPERATORS))]
    return float((np.array(answers)[_roots(rows)] == rows.labels).mean())


def _roots(rows: Rows) -> Int[np.ndarray, " rows"]:
    cells = rows.table.with_format("arrow")[:]["tokens"]
    return np.array([cells[int(index)].as_buffer()[0] for index in rows.indices], np.int64) - FIRST


class ListOpsData(ClassificationData):
    """ListOps as in Long Range Arena, generated by a seed once and kept: the value, 0 to 9, of a tree of 501 to 1,999
    tokens.

    Who reads nothing but the first token, the operator at the root, is right for about 36 % of the trees, twice as many
    as who reads nothing. This baseline, on the very trees of the run, is logged beside validation and test results as
    `baseline_root_operator`.

    Args:
        path: folder in which the generated trees are kept; default: the cache folder of `datasets`.
        batch_size: trees per step and device.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        train_size: training trees. Test and validation trees are the same for any number.
        validation_size: validation trees.
        test_size: test trees.
        data_seed: of all trees.
        shortest: trees are longer than this many tokens.
        longest: trees are shorter than this many tokens.
        deepest: depth of the tree at which all are digits.
        most: arguments of an operator, of which it has at least 2.
        bucket: put trees of similar length into one batch while training, which saves padding.
    """

    def __init__(
        self,
        path: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        train_size: int = 96_000,
        validation_size: int = 2_000,
        test_size: int = 2_000,
        data_seed: int = 0,
        shortest: int = 500,
        longest: int = 2_000,
        deepest: int = 10,
        most: int = 10,
        bucket: bool = True,
    ) -> None:
        super().__init__(
            path or "ListOps",
            batch_size=batch_size,
            num_workers=num_workers,
            label_column="label",
            subset=None,
            validation_fraction=0.1,
            test_fraction=0.0,
            split_seed=0,
            predict_path=None,
        )
        sizes = {"train_size": train_size, "validation_size": validation_size, "test_size": test_size}
        least = dict.fromkeys(sizes, 1) | {"data_seed": 0, "deepest": 2, "most": 2}
        for name, number in (sizes | {"data_seed": data_seed, "deepest": deepest, "most": most}).items():
            if number < least[name]:
                raise ValueError(f"{name}={number}: expected at least {least[name]}")
        if not 0 <= shortest < longest - 1:
            raise ValueError(f"shortest={shortest}, longest={longest}: expected lengths between them")
        self.folder, self.sizes, self.data_seed, self.bucket = path, sizes, data_seed, bucket
        self.shape = Shape(shortest, longest, deepest, most)

    @property
    def max_length(self) -> int:
        """The greatest length that a batch is padded to."""
        return -(-self.shape.longest // PADDED) * PADDED

    def measure(self) -> Facts:
        """Labels, vocabulary size, greatest length, and the baseline's accuracy on validation and test trees."""
        options = {"num_classes": 10, "vocab_size": len(TOKENS), "max_length": self.max_length}
        baselines = {
            stage: {"root_operator": root_operator_baseline(self.split("train"), self.split(name))}
            for stage, name in (("val", "validation"), ("test", "test"))
        }
        return Facts(kind="tokens", options=options, labels=self.labels, baselines=baselines)

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The generated trees: those of the test, of validation, and of training, in this order of their making."""
        words = [*self.sizes.values(), self.data_seed, *asdict(self.shape).values()]
        return load_rows(str(cached(f"listops-{'-'.join(map(str, words))}", self._make, self.folder)))

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> TextItems:
        """Token ids, (N,)."""
        return TextItems(rows, Corpus(rows.table, "tokens", None), Reading(self.max_length))

    @property
    def collate(self) -> Callable[[list[Any]], Batch]:
        """Pad each batch to its longest tree."""
        return partial(pad, multiple=PADDED, most=self.max_length)

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Lengths of the trees."""
        return self.rows_as_items(rows, "train").lengths if self.bucket else None

    def _make(self, folder: Path) -> None:
        train, validation, test = self.sizes.values()
        trees, values = generate(train + validation + test, self.data_seed, self.shape)
        features = datasets.Features(
            tokens=datasets.Value("large_binary"), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
        )
        begins = {"test": 0, "validation": test, "train": test + validation}
        ends = {"test": test, "validation": test + validation, "train": len(trees)}
        tables = {
            split: datasets.Dataset.from_dict(
                {"tokens": trees[begins[split] : ends[split]], "label": values[begins[split] : ends[split]]}, features
            )
            for split in begins
        }
        datasets.DatasetDict(tables).save_to_disk(str(folder))
