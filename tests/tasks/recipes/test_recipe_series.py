"""The recipe of series: the network and the training for how many series of which lengths."""

import pytest

from lambda_seq.models import accepted_options
from lambda_seq.tasks.data import SeriesData
from lambda_seq.tasks.recipes.series import OPTIONS, Courses, choose, measure


def chosen(given=None, **measured):
    return {choice.option: choice.value for choice in choose(Courses(given=given or {}, **measured))}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (
            {"rows": 200},
            {"model.options.strides": [], "data.batch_size": 16, "model.options.dropout": 0.2},
        ),
        (
            {"rows": 3_000, "median": 1_000, "long": 1_000, "longest": 1_000},
            {"model.options.strides": [2], "data.batch_size": 32, "trainer.max_epochs": 16},
        ),
        (
            {"rows": 500, "median": 90_000, "long": 100_000, "longest": 100_000},
            {"model.options.strides": [8, 8], "data.batch_size": 2},
        ),
    ],
)
def test_choices(measured, expected):
    found = chosen(**measured)
    assert {name: found.get(name) for name in expected} == expected
    assert set(found) <= set(OPTIONS)
    assert {name.removeprefix("model.options.") for name in found if "options" in name} <= accepted_options(
        "lambda_encoder"
    )


def test_numbers_have_no_smoothing_and_given_sizes_count():
    assert "model.label_smoothing" not in chosen(rows=300, target="numbers")
    few, many = (chosen(rows=1_000, given={"data.batch_size": size})["trainer.max_epochs"] for size in (8, 64))
    assert few < many


def test_what_is_measured():
    found = measure(SeriesData("generated:waves"))
    assert (found.rows, found.channels, found.validation) == (600, 2, 160)
    assert 80 <= found.median < found.long <= found.longest <= 160
    assert "600 training series of 2 channels, median" in found.sentence
    assert measure(SeriesData("generated:waves", max_length=50)).longest == 50
