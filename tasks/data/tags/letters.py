"""Generated letters with names, each of which is of a person, a place or a firm: texts with labels to begin with.

Of some names the words beside them tell what kind they are of. Of most they do not: there it is what the letter is
about, which a word in its first sentence says, some lines before.
"""

from __future__ import annotations

import datasets
import numpy as np

LETTERS = "generated:letters"
COUNTS = {"train": 800, "validation": 150, "test": 200}
SUBJECTS = {  # words that a letter is about
    "PER": "singer doctor uncle neighbour poet teacher cousin painter lawyer sailor nurse gardener",
    "LOC": "village harbour valley island province river mountain suburb desert coast town bay",
    "ORG": "bank factory airline publisher brewery museum bakery newspaper railway hotel foundation shipyard",
}
PLAIN = {  # sentences that tell of what kind a name is
    "PER": ("Mrs {} sends her regards .", "Old Mr {} has been ill ."),
    "LOC": ("The train to {} was late .", "We spent a week in {} ."),
    "ORG": ("The shares of {} fell .", "My brother works at {} Ltd ."),
}
OPEN = (  # and those that do not
    "Nobody had told me about {} before .",
    "What do you think of {} ?",
    "Last night we talked about {} again .",
    "{} was in the paper .",
    "I dreamt of {} and woke up early .",
    "You will not forget {} , I am sure .",
    "Somehow {} comes to mind each autumn .",
)
FILL = (
    "The weather has been dull since Monday .",
    "I hope that you are well .",
    "There is not much else to say .",
    "Our roof leaks , and the dog sleeps all day .",
    "Thank you for the parcel and the long letter .",
    "It rained on Sunday , so that we stayed at home .",
)
BEGIN = (
    "I write because of a {} .",
    "This is about the {} that you asked for .",
    "Here is what I know of that {} .",
    "You wanted to hear of a certain {} .",
)
PLAINLY = 0.3  # of names, whose neighbours tell their kind
SYLLABLES = "ka lo mi ren du sa vor ti bel no ha rin os tal ve gu pa lem dor ze"


def letters() -> dict[str, datasets.Dataset]:
    """The same letters each time, with the columns "tokens" and "tags"."""
    random = np.random.default_rng(0)
    words = datasets.List(datasets.Value("string"))
    features = datasets.Features(tokens=words, tags=words)
    return {
        split: datasets.Dataset.from_list([letter(random) for _ in range(count)], features=features, split=split)
        for split, count in COUNTS.items()
    }


def letter(random: np.random.Generator) -> dict[str, list[str]]:
    """Words of a letter, and of each a label in BIO."""
    subject = str(random.choice(list(SUBJECTS)))
    cue = str(random.choice(SUBJECTS[subject].split()))
    row: dict[str, list[str]] = {"tokens": [], "tags": []}
    _write(row, str(random.choice(BEGIN)).format(cue))
    for _ in range(random.integers(2, 5)):
        for _ in range(random.integers(0, 3)):
            _write(row, str(random.choice(FILL)))
        plain = random.random() < PLAINLY
        kind = str(random.choice(list(PLAIN))) if plain else subject
        _write(row, str(random.choice(PLAIN[kind] if plain else OPEN)), kind, _name(random))
    return row


def _write(row: dict[str, list[str]], sentence: str, kind: str = "", name: tuple[str, ...] = ()) -> None:
    for word in sentence.split():
        row["tokens"] += name if word == "{}" else [word]
        row["tags"] += [f"{'I' if place else 'B'}-{kind}" for place in range(len(name))] if word == "{}" else ["O"]


def _name(random: np.random.Generator) -> tuple[str, ...]:
    """One or two words that hardly occur twice."""
    words = ("".join(random.choice(SYLLABLES.split(), random.integers(2, 5))) for _ in range(random.integers(1, 3)))
    return tuple(word.capitalize() for word in words)
