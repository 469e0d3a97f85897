"""Words and characters of texts: what is counted, and that characters are those of scikit-learn's analyzer."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from lambda_seq.tasks.baselines import ngrams
from lambda_seq.tasks.baselines.ngrams import Characters, Words, runs

TEXTS = ["The naïve cat  sat on\tthe mat.", "A dog, and a dog; 狗在垫子上", "", "x"]


@pytest.mark.parametrize("text", TEXTS)
def test_runs_of_characters_are_those_of_words_and_the_spaces_around(text):
    analyse = CountVectorizer(analyzer="char_wb", ngram_range=(3, 5)).build_analyzer()
    expected = [run for run in analyse(" ".join(text.split())) if len(run) >= 3]
    kept = {}  # of a word that is shorter than a run, the library repeats the word
    for run in expected:
        kept[run] = kept.get(run, 0) + 1
    found = runs(text)
    assert len(set(found.tolist())) == len(kept)


def test_the_same_runs_have_the_same_numbers_everywhere():
    assert runs("cat").tolist() == runs("  CAT\n").tolist()
    assert set(runs("cat").tolist()) <= set(runs("a cat sat").tolist())
    assert runs("cat").tolist() == [*map(int, runs("cat"))]
    assert (runs("naïve 狗在垫子上") < 2**ngrams.BITS).all()


@pytest.mark.parametrize("kind", [Words, Characters])
def test_rows_have_length_one_and_new_texts_the_same_features(kind):
    made = kind()
    found = made.fit(TEXTS)
    lengths = np.linalg.norm(found.toarray(), axis=1)
    np.testing.assert_allclose(lengths[:2], 1, rtol=1e-5)
    assert lengths[2] == 0
    np.testing.assert_allclose(made(TEXTS).toarray(), found.toarray(), atol=1e-6)
    assert made(["entirely unseen ω"]).shape == (1, found.shape[1])


def test_texts_without_anything():
    assert Words().fit(["", "…"]) is None
    assert Characters().fit(["", ""]) is None


def test_what_occurs_in_most_texts_is_kept(monkeypatch):
    monkeypatch.setattr(ngrams, "CHARACTERS", 3)
    made = Characters()
    assert made.fit(["cats", "cats", "dog"]).shape == (3, 3)
    assert made(["cats"]).nnz == 3
    assert made(["dog"]).nnz == 0
