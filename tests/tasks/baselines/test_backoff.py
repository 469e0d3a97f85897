"""N-grams: probabilities are those of the definition, written with dictionaries, and sum to one."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from lambda_seq.tasks.baselines.backoff import LEAST, Ngrams, Text

MARK, VOCABULARY = 0, 6


def documents(seed=0, count=20):
    random = np.random.default_rng(seed)
    made = [random.choice([1, 1, 1, 2, 2, 3, 4], random.integers(1, 30)) for _ in range(count)]
    return [np.concatenate([[MARK], ids, [MARK]]) for ids in made]


class Naive:
    """The equations, token by token."""

    def __init__(self, found, order):
        self.counts = [Counter() for _ in range(order + 1)]  # by length
        for ids in found:
            for end in range(1, len(ids)):
                for length in range(1, order + 1):
                    if end - length + 1 >= 0:
                        self.counts[length][tuple(ids[end - length + 1 : end + 1].tolist())] += 1
        self.wider = [Counter() for _ in range(order + 1)]
        for length in range(1, order):
            fronts = defaultdict(set)
            for gram in self.counts[length + 1]:
                fronts[gram[1:]].add(gram[0])
            for gram, count in self.counts[length].items():
                self.wider[length][gram] = len(fronts[gram]) or count
        self.wider[order] = self.counts[order]

    @staticmethod
    def discounts(counts):
        n = Counter(min(count, 5) for count in counts.values())
        y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
        found = [i - (i + 1) * y * n[i + 1] / n[i] if n[i] else y for i in (1, 2, 3)]
        return [min(max(d, LEAST), i) for i, d in enumerate(found, 1)]

    def probability(self, context, token, length, top):
        if not length:
            return 1 / VOCABULARY
        below = self.probability(context, token, length - 1, False)
        if len(context) < length - 1:
            return below
        counts = (self.counts if top else self.wider)[length]
        before = tuple(context[len(context) - length + 1 :])
        behind = [count for gram, count in counts.items() if gram[:-1] == before]
        if not behind:
            return below
        d = self.discounts(counts)
        rest = sum(d[min(count, 3) - 1] for count in behind) / sum(behind)
        own = counts[(*before, token)]
        return (own - (d[min(own, 3) - 1] if own else 0)) / sum(behind) + rest * below


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_the_definition(order):
    found = documents()
    model, naive = Ngrams(Text.of(found), VOCABULARY, order), Naive(found, order)
    assert model.order == order
    for ids in documents(1, 4):
        nats = model.nats(Text.of([ids]))
        expected = [
            -math.log(naive.probability(ids[:end].tolist(), int(ids[end]), order, True)) for end in range(1, len(ids))
        ]
        np.testing.assert_allclose(nats, expected, rtol=1e-5)


def test_probabilities_sum_to_one_whatever_the_context():
    model = Ngrams(Text.of(documents()), VOCABULARY, 4)
    for context in ([MARK], [MARK, 1], [2, 1], [5, 5, 5], [3, 1, 1, 2]):
        total = np.zeros(4)
        for token in range(VOCABULARY):
            total += [math.exp(-nats[-1]) for nats in model.by_order(Text.of([np.array([*context, token])]))]
        np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_each_order_by_itself():
    found = documents()
    model, text = Ngrams(Text.of(found), VOCABULARY, 4), Text.of(documents(2))
    sums = [nats.sum() for nats in model.by_order(text)]
    for order in (1, 2, 3, 4):
        assert model.shortened(order).nats(text).sum() == pytest.approx(sums[order - 1])
        assert model.shortened(order).order == order
    assert model.order == 4


def test_orders_end_where_there_are_no_longer_ones():
    model = Ngrams(Text.of([np.array([0, 1, 2]), np.array([0, 1])]), 3, 9)
    assert model.order == 3
    assert model.size == 2 + 2 + 1
    assert np.isfinite(model.nats(Text.of([np.array([0, 2, 2, 2, 2])]))).all()


def test_documents_do_not_see_one_another():
    one, other = documents(3, 2)
    model = Ngrams(Text.of(documents()), VOCABULARY, 4)
    both = model.nats(Text.of([one, other]))
    np.testing.assert_allclose(both, np.concatenate([model.nats(Text.of([ids])) for ids in (one, other)]))


def test_a_text_cut_in_two_predicts_each_token_once():
    text = Text.of(documents(4, 5))
    for at in (2, len(text.ids) // 2, len(text.ids) - 1):
        first, second = text.cut(at)
        assert first.predicted.sum() + second.predicted.sum() in (text.predicted.sum(), text.predicted.sum() + 1)
        assert second.place[0] == 0
        assert (np.diff(second.place)[np.diff(second.place) != 1] < 0).all()
        assert second.ids[1:].tolist() == text.ids[at:].tolist()


def test_text_without_a_prediction():
    with pytest.raises(ValueError, match="1 tokens, of which none is predicted"):
        Ngrams(Text.of([np.array([0])]), 3, 2)
