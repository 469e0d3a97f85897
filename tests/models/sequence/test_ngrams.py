"""N-grams by hash: against loops over Python's integers and dictionaries, and what weighs them."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from lambda_seq import LambdaEncoder
from lambda_seq import functional as LF
from lambda_seq.models.sequence import ngrams
from lambda_seq.models.sequence.ngrams import TF, NgramStem, hashed
from lambda_seq.models.sequence.stems import make_stem

DIM, BUCKETS = 6, 97
HIGH = 2**31  # above all ids of words


def number(ids):
    """The hash of an n-gram, in integers without an end."""
    found = len(ids)
    for one in ids:
        found = (found * 0x4F1BBCDD + one) % 2**31
        found = (found ^ found >> 16) * 0x3504F333 % 2**31
        found = (found ^ found >> 15) * 0x5DB3D743 % 2**31
        found ^= found >> 16
    return found


def found_in(ids, orders, buckets=BUCKETS):
    """Buckets of the n-grams that end at each position of a document."""
    return [
        [number(ids[end - order : end]) % buckets for order in orders if order <= end] for end in range(1, len(ids) + 1)
    ]


def term(tf, times):
    """What an n-gram counts that a text has so many times."""
    if times == 0 or tf == "natural":
        return times
    return 1 + math.log(times) if tf == "log" else 1


def naive(stem, ids):
    """Vectors of a document (N, C)."""
    weights = [1.0] * stem.buckets if stem.weight is None else stem.weight.tolist()
    rows, before = [], Counter()
    for buckets in found_in(ids, stem.orders, stem.buckets):
        row = torch.zeros(DIM).double()
        for bucket in buckets:
            before[bucket] += 1
            more = term(stem.tf, before[bucket]) - term(stem.tf, before[bucket] - 1)
            row = row + more * weights[bucket] * stem.embedding.weight[bucket] * DIM**0.5
        rows.append(row)
    return torch.stack(rows)


@pytest.fixture
def make():
    def build(**options):
        torch.manual_seed(0)
        stem = NgramStem(DIM, **{"buckets": BUCKETS, "idf": True, **options}).double()
        if stem.weight is not None:
            stem.weight.uniform_(0.5, 2)
        return stem

    return build


def draw(*shape):
    return torch.randint(1, HIGH, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("orders", [(1,), (2,), (1, 2), [3, 1], (1, 2, 5)], ids=str)
@pytest.mark.parametrize("idf", [True, False])
@pytest.mark.parametrize("tf", TF)
def test_vectors_of_all_ngrams_are_added_up(make, orders, idf, tf):
    stem, x = make(orders=orders, idf=idf, tf=tf), draw(2, 9)
    out, mask = stem(x)
    assert mask is None
    for row, ids in enumerate(x.tolist()):
        torch.testing.assert_close(out[row], naive(stem, ids), rtol=1e-12, atol=1e-12)
    small = torch.tensor([[3, 1, 2, 2, 1, 3, 1]])  # of a small vocabulary, and another dtype
    torch.testing.assert_close(stem(small.int())[0][0], naive(stem, small[0].tolist()), rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_the_sum(make):
    stem, x = make(), draw(1, 20)
    weights = torch.randn(20, DIM, dtype=torch.float64)
    results = []
    for out in (stem(x)[0][0], naive(stem, x[0].tolist())):
        results.append(torch.autograd.grad((out * weights).sum(), stem.embedding.weight)[0])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_an_ngram_counts_by_how_often_it_was_there(make):
    stem = make(orders=(1,), idf=False, tf="binary")
    torch.nn.init.constant_(stem.embedding.weight, 1 / stem.gain)
    x = torch.tensor([[5, 7, 5, 9, 7, 5], [7, 7, 7, 5, 5, 7]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    assert stem(x)[0][..., 0].tolist() == [[1, 1, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0]]
    assert stem(x, mask)[0][..., 0].tolist() == [[0, 1, 1, 1, 0, 0], [1, 0, 0, 1, 0, 0]]
    documents = torch.tensor([[0, 0, 1, 1, 1, 1], [3, 3, -1, 3, 3, 5]])
    found = stem(x, documents >= 0, LF.Packing.of(documents))[0][..., 0]
    assert found.tolist() == [[1, 1, 1, 1, 1, 0], [1, 0, 0, 1, 0, 1]]
    stem.tf = "log"
    x[:, 1:] = x[:, :1]
    third = math.log(3 / 2)
    expected = torch.tensor([[1, math.log(2), third, math.log(4 / 3), math.log(5 / 4), math.log(6 / 5)]]).double()
    torch.testing.assert_close(stem(x)[0][..., 0], expected.expand(2, 6))
    found = stem(x, documents >= 0, LF.Packing.of(documents))[0][..., 0]
    expected = torch.tensor([[1, math.log(2), 1, math.log(2), third, math.log(4 / 3)], [1, math.log(2), 0] * 2])
    expected[1, 5] = 1
    torch.testing.assert_close(found, expected.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_many_times_are_told_apart_in_any_precision(make, dtype):
    stem = make(orders=(1,), idf=False, tf="log").to(dtype)
    torch.nn.init.constant_(stem.embedding.weight, 1 / stem.gain)
    found = stem(torch.full((1, 1000), 5))[0][0, :, 0].double()
    times = torch.arange(2.0, 1001).double()
    torch.testing.assert_close(found[1:], (times / (times - 1)).log(), rtol=0.02, atol=0)


def test_an_ngram_with_a_masked_position_is_none(make):
    stem, x = make(orders=(1, 2, 3)), draw(1, 8)
    mask = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 0]], dtype=torch.bool)
    out, _ = stem(torch.where(mask, x, -5), mask)
    for begin, end in ((1, 4), (5, 7)):  # as if each run stood alone
        torch.testing.assert_close(out[0, begin:end], naive(stem, x[0, begin:end].tolist()), rtol=1e-12, atol=1e-12)
    assert not out[~mask].any()


def test_ngrams_end_at_the_ends_of_documents(make):
    stem, x = make(orders=(1, 2, 3)), draw(1, 10)
    documents = torch.tensor([[4, 4, 4, 4, 7, -1, 7, 7, 4, 4]])
    out, _ = stem(x, None, LF.Packing.of(documents))
    for begin, end in ((0, 4), (4, 5), (6, 8), (8, 10)):
        torch.testing.assert_close(out[0, begin:end], naive(stem, x[0, begin:end].tolist()), rtol=1e-12, atol=1e-12)


def test_hashes_spread_evenly_and_tell_orders_and_places_apart():
    ids = torch.arange(256)
    pairs = hashed([ids[:, None].expand(256, 256), ids.expand(256, 256)])
    for found in (pairs.flatten(), hashed([torch.arange(2**16)]), hashed([torch.arange(2**16) * 2**15])):
        assert found.min() >= 0
        assert found.max() < 2**31
        for buckets in (2**10, 1000):
            counts = torch.bincount(found % buckets, minlength=buckets).double()
            mean = 2**16 / buckets
            assert counts.var() / mean == pytest.approx(1, abs=0.25)  # a Poisson distribution's
    assert (pairs != pairs.T)[~torch.eye(256, dtype=torch.bool)].all()
    assert not np.intersect1d(hashed([torch.tensor([0]), torch.tensor([7])]), hashed([torch.tensor([7])])).size
    flipped = torch.stack([hashed([ids ^ (1 << bit)]) ^ hashed([ids]) for bit in range(31)])
    changed = torch.stack([(flipped >> bit) & 1 for bit in range(31)]).double().mean((1, 2))
    assert (changed - 0.5).abs().max() < 0.05  # a bit of an id changes half of the bits of its hash


def test_a_hash_is_what_integers_without_an_end_give_and_stays():
    """For ever: networks that were saved have learned them."""
    for ids in ([1], [2**31 - 1, 5], [1, 2, 3], [2**31 - 1] * 9):
        assert hashed([torch.tensor(one) for one in ids]).item() == number(ids)
    assert hashed([torch.tensor(1)]).item() == 1571178274


def test_dropout_takes_all_ngrams_of_a_hidden_token(make):
    stem = make(dropout=0.25, idf=False)
    torch.nn.init.constant_(stem.embedding.weight, 1 / stem.gain)
    out, _ = stem(draw(40, 500))
    alone, pair = 1 / 0.75, 1 / 0.75**2
    values, counts = out[..., 0].unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, alone, alone + pair])
    assert counts[0] / counts.sum() == pytest.approx(0.25, abs=0.01)
    assert out.mean().item() == pytest.approx(2, abs=0.03)  # as many as without, on average
    torch.testing.assert_close(stem.eval()(draw(1, 5))[0][0, :, 0], torch.tensor([1.0, 2, 2, 2, 2]).double())


@pytest.mark.parametrize("tf", ["log", "binary"])
def test_dropout_hides_a_token_wherever_it_stands_unless_each_counts(make, tf):
    stem = make(dropout=0.25, idf=False, tf=tf, orders=(1,), buckets=10**5)
    torch.nn.init.constant_(stem.embedding.weight, 1 / stem.gain)
    x = torch.arange(1, 41).repeat(500, 3)  # forty ids, three times each
    found = stem(x)[0][..., 0]
    assert set(found[:, :40].unique().tolist()) == {0, 1 / 0.75}
    for times in (2, 3):
        more = term(tf, times) - term(tf, times - 1)
        torch.testing.assert_close(found[:, 40 * (times - 1) : 40 * times], found[:, :40] * more)
    assert (found[:, :40] == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert 0 < (found[:, :40] == 0).double().mean(0).std() < 0.05  # each text hides others
    assert len({tuple(row) for row in (found[:, :40] == 0).tolist()}) > 490


def test_vectors_begin_small():
    for orders in ((1,), (1, 2), (1, 2, 3)):
        torch.manual_seed(0)
        out, _ = NgramStem(64, orders=orders, buckets=2**14)(draw(8, 400))
        assert out[:, 3:].std().item() == pytest.approx(0.01 * len(orders) ** 0.5, rel=0.03)


def by_hand(documents, orders, idf=True, df_power=0.0, tf="natural", buckets=BUCKETS):
    """Weights of the buckets by their definition."""
    occurring = [Counter(bucket for row in found_in(ids, orders, buckets) for bucket in row) for ids in documents]
    weights = [0.0] * buckets
    for bucket in range(buckets):
        having = sum(bucket in counts for counts in occurring)
        if having:
            weights[bucket] = (math.log((1 + len(documents)) / (1 + having)) if idf else 1.0) * having**df_power
    total = Counter()
    for counts in occurring:
        for bucket, times in counts.items():
            total[bucket] += term(tf, times)
    square = sum(count * weights[bucket] ** 2 for bucket, count in total.items()) / sum(total.values())
    return torch.tensor([weight / square**0.5 for weight in weights], dtype=torch.float64)


@pytest.mark.parametrize("orders", [(1,), (1, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("together", [1, 30, 10**6])
@pytest.mark.parametrize(
    ("idf", "df_power", "tf"),
    [(True, 0, "natural"), (True, 0.5, "log"), (False, 0.5, "natural"), (False, 1, "binary"), (False, 0.5, "log")],
)
def test_weights_follow_from_document_frequencies(make, orders, together, idf, df_power, tf, monkeypatch):
    monkeypatch.setattr(ngrams, "COUNTED", together)
    random = np.random.default_rng(0)
    documents = [random.integers(1, 20, random.integers(0, 40)) for _ in range(25)] + [np.array([], dtype=np.int64)]
    stem = make(orders=orders, idf=idf, df_power=df_power, tf=tf)
    stem.adapt(iter(documents))
    expected = by_hand([ids.tolist() for ids in documents], orders, idf, df_power, tf)
    torch.testing.assert_close(stem.weight, expected, rtol=1e-12, atol=1e-12)
    assert (expected == 0).any() == (stem.weight == 0).any()


def test_adam_learns_of_an_ngram_in_proportion_to_its_documents_with_a_root_of_their_number(make):
    """Both n-grams have the same gradient in each document that has them: one has 4 documents, the other 64 of 256."""
    learned = {}
    for df_power in (0.0, 0.5):
        stem = make(orders=(1,), df_power=df_power, idf=False).float()
        documents = [[one for one, every in ((1, 64), (2, 4), (3, 1)) if place % every == 0] for place in range(256)]
        if stem.adapts:
            stem.adapt(np.array(ids) for ids in documents)
        torch.nn.init.zeros_(stem.embedding.weight)
        optimizer = torch.optim.Adam(stem.parameters(), lr=0.01)
        for ids in documents:
            stem(torch.tensor([ids]))[0].sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        rare, often = (stem(torch.tensor([[one]]))[0].abs().mean().item() for one in (1, 2))
        learned[df_power] = often / rare
    assert learned[0.0] < 6  # about the root of 64 / 4
    assert 12 < learned[0.5] < 24


@pytest.mark.parametrize("documents", [[], [np.array([], dtype=np.int64)], [np.array([1, 2])], [np.array([4])] * 3])
def test_where_there_is_nothing_to_tell_all_weigh_alike(make, documents):
    stem = make()
    stem.adapt(documents)
    assert (stem.weight == 1).all()


def test_weights_are_kept_with_the_weights(make):
    stem = make()
    stem.adapt([np.array([1, 2, 3]), np.array([1, 4])])
    other = make()
    other.load_state_dict(stem.state_dict())
    assert torch.equal(other.weight, stem.weight)
    assert "weight" not in dict(stem.named_parameters())
    assert not make(idf=False).adapts
    with pytest.raises(ValueError, match=r"idf=False, df_power=0: the stem has no weights to adapt"):
        make(idf=False).adapt([])


def test_a_stream_goes_on_within_dropout(make):
    """What is hidden in one piece is hidden from the n-grams of the next."""
    stem = make(dropout=0.5, idf=False, orders=(2,))
    torch.nn.init.ones_(stem.embedding.weight)
    state, seen = stem.init_state(1), []
    for one in draw(1, 200).split(1, 1):
        frames, state = stem.step(one, state)
        seen.append((bool(frames.any()), bool(state[0].kept[0, 0, 1])))
    for (_, before), (there, real) in pairwise(seen):
        assert there == (before and real)


def test_frames_and_states_of_many_kinds(make):
    stem = make(orders=(1, 4), strides=(2,), causal=True, norm="none")
    x = draw(2, 11)
    state, frames = stem.init_state(2), []
    for piece in x.split([1, 2, 5, 3], 1):
        some, state = stem.step(piece, state)
        frames.append(some)
    torch.testing.assert_close(torch.cat(frames, 1), stem(x)[0])
    assert state[0].kept[..., 0].tolist() == x[:, -3:].tolist()
    with pytest.raises(ValueError, match=r"state does not keep 3 ids, as orders=\[1, 4\] need"):
        stem.step(x, make(orders=(1, 2)).init_state(2))
    with pytest.raises(ValueError, match=r"state does not keep 3 ids"):
        stem.step(x, ())
    counting = make(orders=(1, 4), tf="log")
    with pytest.raises(ValueError, match=r"state counts 97 buckets, where tf='natural', buckets=97 need 0: take the"):
        stem.step(x, counting.init_state(2))
    with pytest.raises(ValueError, match=r"state counts 0 buckets, where tf='log', buckets=97 need 97: take the state"):
        counting.step(x, stem.init_state(2))


def test_an_encoder_of_any_vocabulary():
    torch.manual_seed(0)
    options = {"num_classes": 3, "dim": 8, "depth": 1, "heads": 2, "buckets": 50, "stem": "ngrams"}
    model = LambdaEncoder(**options).eval()
    assert (model.input_kind, model.vocab_size) == ("tokens", None)
    assert model(draw(2, 7)).shape == (2, 3)
    assert LambdaEncoder(vocab_size=HIGH, **options).vocab_size == HIGH  # which costs nothing
    logits = LambdaEncoder(**options | {"head": "tokens", "num_classes": None, "vocab_size": 20})(
        torch.ones(1, 4).long()
    )
    assert logits.shape == (1, 4, 20)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"orders": []}, ValueError, r"orders=\[\]: expected different lengths of n-grams, each at least 1: \[1, 2\]"),
        ({"orders": [0, 1]}, ValueError, r"orders=\[0, 1\]: expected"),
        ({"orders": [2, 2]}, ValueError, r"orders=\[2, 2\]: expected"),
        ({"orders": 2}, TypeError, r"orders=2: expected a list of integers, such as \[1, 2\]"),
        ({"orders": [1.5]}, TypeError, r"orders\[0\]=1.5: expected an integer"),
        ({"buckets": 0}, ValueError, r"buckets=0: expected at least 1"),
        ({"buckets": 2**31}, ValueError, r"buckets=2147483648: expected at most 2147483647"),
        ({"vocab_size": 0}, ValueError, r"vocab_size=0: expected at least 1"),
        ({"idf": 1}, TypeError, r"idf=1: expected True or False"),
        ({"tf": "raw"}, ValueError, r"tf='raw': expected one of 'natural', 'log', 'binary'"),
        ({"df_power": True}, TypeError, r"df_power=True: expected a number"),
        ({"df_power": -0.5}, ValueError, r"df_power=-0.5: expected a number from 0, for none, to 1; try 0.5"),
        ({"in_channels": 2}, ValueError, r"in_channels=2 does not apply to stem='ngrams'"),
    ],
    ids=str,
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        make_stem("ngrams", DIM, **options)


@pytest.mark.parametrize("name", ["orders", "buckets", "idf", "df_power", "tf"])
def test_options_are_of_this_stem_alone(name):
    value = {"orders": [1], "buckets": 9, "idf": False, "df_power": 0.5, "tf": "log"}[name]
    with pytest.raises(ValueError, match=rf"{name}=.* does not apply to stem='tokens': .*use stem='ngrams'"):
        make_stem("tokens", DIM, **{name: value})


def test_bad_input(make):
    with pytest.raises(TypeError, match=r"x is torch.float32: expected token ids"):
        make()(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"x has shape \(3,\): expected \(B, N\), N at least 1; a batch of one"):
        make()(torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"vocab_size=2147483648: ids of words are hashes, .*use stem='ngrams'"):
        make_stem("tokens", DIM, vocab_size=HIGH)
    with pytest.raises(ValueError, match=r"head='tokens': which of all ids a token is cannot be said"):
        LambdaEncoder(stem="ngrams", buckets=9, head="tokens")
