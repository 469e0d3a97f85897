"""Rows of a language model: what is predicted from what, and how often."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_seq.tasks.data.language.packs import (
    IGNORED,
    Documents,
    EvaluationRows,
    InOrder,
    TrainingRows,
    pad_rows,
    row_of,
)

MARK = 0


class Numbers:
    """Documents of these lengths, whose tokens are all different: 1000 · (document + 1) + position."""

    def __init__(self, lengths):
        self.lengths = np.array(lengths)

    def read(self, index, begin=0, end=None):
        tokens = 1000 * (index + 1) + np.arange(self.lengths[index])
        return tokens[begin:end].astype(np.int64)


def documents(lengths, **options):
    return Documents.of(Numbers(lengths), 2 * np.array(lengths), mark=MARK, **options)


def predicted(row):
    """(document, place of the target or "end", ids seen) of each prediction that counts; checks what it is from."""
    found = []
    for piece in row["documents"].unique().tolist():
        if piece < 0:
            continue
        place = row["documents"] == piece
        x, target = row["x"][place].tolist(), row["target"][place].tolist()
        for number, (token, following) in enumerate(zip(x, target, strict=True)):
            if number + 1 < len(x) and following != IGNORED:
                assert following == x[number + 1]
            if following == IGNORED:
                continue
            if token == MARK:  # a document's first token
                assert following % 1000 == 0
                assert number == 0
            elif following != MARK:
                assert following == token + 1
            place_of = "end" if following == MARK else following % 1000
            found.append((row["id"][piece], place_of, number + 1))
    return found


def test_a_document_has_a_mark_at_both_ends():
    row = row_of([documents([3]).piece(0, 0, 4)])
    assert row["x"].tolist() == [MARK, 1000, 1001, 1002]
    assert row["target"].tolist() == [1000, 1001, 1002, MARK]
    assert row["bytes"] == [6.0]
    assert row["id"] == ["0"]


def test_any_piece_of_a_document():
    whole = documents([3])
    ids = [MARK, 1000, 1001, 1002, MARK]
    for first in range(4):
        for last in range(first + 1, 5):
            for skip in range(last - first):
                piece = whole.piece(0, first, last, skip)
                assert piece.ids.tolist() == ids[first : last + 1]
                assert piece.size == 2 * (min(last, 3) - (first + skip))


def test_one_byte_is_two_predictions_and_an_empty_document_none():
    few = documents([1, 0, 2])
    assert few.index.tolist() == [0, 2]
    assert few.predictions.tolist() == [2, 3]
    assert row_of([few.piece(0, 0, 2)])["target"].tolist() == [1000, MARK]
    assert len(documents([0, 0])) == 0


def test_a_part_of_a_document_ends_without_a_mark_unless_the_document_does():
    share = (np.array([0.0, 0.0]), np.array([1.0, 0.5]))
    part = documents([4, 4], share=share)
    assert part.predictions.tolist() == [5, 2]
    rest = documents([4, 4], index=np.array([1]), share=(np.array([0.5]), np.array([1.0])))
    assert row_of([rest.piece(0, 0, 3)])["x"].tolist() == [MARK, 2002, 2003]
    assert row_of([rest.piece(0, 0, 3)])["target"].tolist() == [2002, 2003, MARK]


def test_a_row_of_several_pieces_padded():
    few = documents([2, 1])
    rows = [row_of([few.piece(0, 0, 3, skip=1), few.piece(1, 0, 2)]), row_of([few.piece(1, 0, 2)])]
    batch = pad_rows(rows, mark=MARK)
    packing = batch["documents"].packing
    assert packing.number.tolist() == [[0, 0, 0, 1, 1], [2, 2, -1, -1, -1]]
    assert packing.mask is batch["mask"]
    assert batch["target"].tolist() == [[IGNORED, 1001, 0, 2000, 0], [2000, 0, IGNORED, IGNORED, IGNORED]]
    assert batch["mask"].tolist() == [[True] * 5, [True, True, False, False, False]]
    assert batch["bytes"].tolist() == [[2.0, 2.0], [2.0, 0.0]]
    assert batch["id"] == [["0", "1"], ["1"]]
    assert "mask" not in pad_rows(rows[:1], mark=MARK)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    length=st.integers(1, 12),
    share=st.floats(0.01, 1),
)
def test_evaluation_predicts_each_token_once_with_context(lengths, length, share):
    stride = max(1, round(share * length))
    whole = documents(lengths)
    rows = EvaluationRows(whole, length, stride)
    found = []
    for number in range(len(rows)):
        row = rows[number]
        assert 0 < len(row["x"]) <= length
        for name, place, seen in predicted(row):
            found.append((name, place))
            before = lengths[int(name)] if place == "end" else place
            assert seen > min(before, length - stride)  # that much context, or all there is
    expected = [
        [*((str(index), place) for place in range(count)), (str(index), "end")] for index, count in enumerate(lengths)
    ]
    assert found == [
        prediction for document, count in zip(expected, lengths, strict=True) for prediction in document if count
    ]
    total = sum(sum(rows[number]["bytes"]) for number in range(len(rows)))
    assert total == pytest.approx(2 * sum(lengths))


def test_short_documents_share_rows_in_evaluation():
    rows = EvaluationRows(documents([1] * 9), 6, 6)
    assert [len(rows[number]["x"]) for number in range(len(rows))] == [6, 6, 6]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    length=st.integers(1, 40),
    epoch=st.integers(0, 5),
)
def test_training_rows_cover_all_but_less_than_a_row(lengths, length, epoch):
    whole = documents(lengths)
    total = int(whole.predictions.sum())
    rows = TrainingRows(whole, length, [3])
    assert len(rows) == max(total // length, 1)
    found = []
    for number in range(len(rows)):
        row = rows[epoch, number]
        assert len(row["x"]) == min(length, total)
        assert IGNORED not in row["target"]
        marks = row["target"] == MARK
        found += row["target"][~marks].tolist() + (row["x"][marks] + 500).tolist()
        predicted(row)
    assert len(found) == len(set(found)) == len(rows) * min(length, total)


def test_each_epoch_begins_elsewhere_and_depends_on_the_seed():
    whole = documents([200, 100, 50])
    rows = TrainingRows(whole, 20, [0])
    first = [rows[0, number]["x"].tolist() for number in range(len(rows))]
    assert [rows[0, number]["x"].tolist() for number in range(len(rows))] == first
    assert rows[1, 0]["x"].tolist() != first[0]
    assert [rows[0, number]["x"].tolist() for number in range(len(rows))] == first  # whatever was read between
    assert TrainingRows(whole, 20, [1])[0, 0]["x"].tolist() != first[0]
    starts = {rows[epoch, 0]["x"][0].item() for epoch in range(20)}
    assert len(starts) > 15


@pytest.mark.parametrize("replicas", [1, 3, 8])
def test_processes_read_neighbouring_rows_each_once(replicas):
    rows = EvaluationRows(documents([7, 9, 30]), 8, 8)
    parts = [list(InOrder(rows, replicas, rank)) for rank in range(replicas)]
    assert len({len(part) for part in parts}) == 1
    assert [row for part in parts for row in part if row >= 0] == list(range(len(rows)))
    filler = rows[-1]
    assert not predicted(filler)
    batch = pad_rows([filler, filler], mark=MARK)
    assert batch["bytes"].tolist() == [[0.0], [0.0]]
    assert not batch["mask"].any()
    assert torch.equal(batch["target"], torch.full((2, 1), IGNORED))
