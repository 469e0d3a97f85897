"""Chunks as they are walked, and as they are counted."""

import math
from collections import Counter

import pytest

from lambda_seq.functional.position.cuts import Cuts

AXES = [
    ((7, 3),),
    ((6, 3), (5, 9)),
    ((1, 1), (10, 4), (3, 2)),
    ((0, 3), (5, 2)),
    ((4, 4), (4, 1), (9, 5)),
]


@pytest.mark.parametrize("axes", AXES)
def test_every_entry_is_in_one_chunk(axes):
    places = Counter()
    for slices in Cuts(*axes):
        for place in [(index, *rest) for index in _range(slices[0]) for rest in _rest(slices[1:])]:
            places[place] += 1
    assert len(places) == math.prod(length for length, _ in axes)
    assert set(places.values()) <= {1}


@pytest.mark.parametrize("axes", AXES)
def test_the_shapes_counted_are_those_walked(axes):
    cuts = Cuts(*axes)
    walked = Counter(tuple(part.stop - part.start for part in slices) for slices in cuts)
    assert dict(cuts.shapes()) == walked
    assert len(cuts) == sum(walked.values())
    assert not walked or cuts.largest == max(walked)


def _range(part):
    return range(part.start, part.stop)


def _rest(slices):
    return [(index, *rest) for index in _range(slices[0]) for rest in _rest(slices[1:])] if slices else [()]
