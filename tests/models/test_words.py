"""Words as numbers."""

import pytest

from lambda_seq.models import words
from lambda_seq.models.inputs import WORD_IDS
from lambda_seq.models.words import word_ids

KNOWN = [1226901888, 202269227, 1652662443, 1258474143, 1580806013]  # of "The cat, naïve 世界"


def cut(text):
    return words.WORD.findall(text)


def test_words_are_runs_and_other_characters_stand_alone():
    assert cut("It's 3.50 €, snake_case\n\t— naïve!!") == [
        *("It", "'", "s", "3", ".", "50", "€", ",", "snake_case", "—", "naïve", "!", "!")
    ]
    assert cut("привет, 世界 👋") == ["привет", ",", "世界", "👋"]


def test_ids_follow_the_word_alone():
    first, second, again = word_ids("cat dog CAT")
    assert first == again != second
    assert word_ids("Étude") == word_ids("e\u0301tude")  # composed, and in lower case
    assert word_ids("") == word_ids(" \n\u3000\u00a0") == []
    assert word_ids("a\ud800") == word_ids("a?")  # half of a pair is no character
    assert all(0 < index < WORD_IDS for index in word_ids(" ".join(map(str, range(5000)))))


def test_ids_are_the_same_everywhere():
    """For ever: networks that were saved have learned them."""
    assert word_ids("The cat, naïve 世界") == KNOWN


def test_few_words_share_an_id():
    ids = word_ids(" ".join(f"w{number}" for number in range(20_000)))
    assert len(set(ids)) >= len(ids) - 2  # 0.1 pairs are expected


def test_what_is_remembered_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(words, "KEPT", 10)
    monkeypatch.setattr(words, "_KNOWN", words._Known())
    text = " ".join(map(str, range(100)))
    expected = word_ids(text)
    assert len(words._KNOWN) <= 10
    assert word_ids(text) == expected


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [(None, False), ({}, False), ({"tokens": "words"}, False), ({"tokens": {"kind": "words"}}, True)],
)
def test_what_a_saved_model_says_of_its_tokens(preprocessing, expected):
    assert words.takes_words(preprocessing) == expected
