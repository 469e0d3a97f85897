"""What recipes are and what they share: tables, epochs, batches, and which metric tells the best network."""

from dataclasses import replace

import pytest

from lambda_seq.tasks.data import AudioData, ImageData, SeriesData, TextData
from lambda_seq.tasks.recipes import RECIPES, Measured, named
from lambda_seq.tasks.recipes.audio import Clips
from lambda_seq.tasks.recipes.pictures import Images
from lambda_seq.tasks.recipes.registry import register
from lambda_seq.tasks.recipes.rules import batches, by, classes_in_words, epochs, few, monitors
from lambda_seq.tasks.recipes.series import Courses
from lambda_seq.tasks.recipes.texts import Texts

STEPS = ((300, 600), (1_000, 1_200), (None, 4_000))
# What depends on options that recipes may not choose, as what was read before the choice is read no more
READ_WITH = ("path", "subset", "label_column", "split_seed", "validation_fraction", "test_fraction", "verify", "bucket")


def test_they_are_known_by_name():
    assert {name: recipe.data for name, recipe in RECIPES.items()} == {
        "audio": AudioData,
        "pictures": ImageData,
        "series": SeriesData,
        "texts": TextData,
    }
    assert named("texts").name == "texts"
    with pytest.raises(
        ValueError, match=r"recipe='nothing': the recipes are audio, pictures, series, texts; null chooses"
    ):
        named("nothing")
    with pytest.raises(ValueError, match=r"recipe='text': did you mean texts\? The recipes are"):
        named("text")
    with pytest.raises(ValueError, match="recipe='texts' is registered already"):
        register(named("texts"))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_what_is_read_depends_on_no_choice(recipe):
    assert not {f"data.{name}" for name in READ_WITH} & set(recipe.options)
    assert set(recipe.anywhere) <= {name.removeprefix("model.options.") for name in recipe.options}


@pytest.mark.parametrize("rows", [1, 30, 700, 20_000, 3_000_000])
@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("texts", Texts(rows=1, median=40, long=90, longest=95)),
        ("texts", Texts(rows=1, median=30_000, long=90_000, longest=120_000, validation=1, classes=(90, 10))),
        ("texts", Texts(rows=1, given={"data.tokenizer": "train"})),
        ("audio", Clips(rows=1, rate=8_000, median=0.4, long=0.9, longest=2.5)),
        ("audio", Clips(rows=1, rate=44_100, median=60, long=90, longest=300, validation=1, classes=(90, 10))),
        ("audio", Clips(rows=1, frames=True)),
        ("pictures", Images(rows=1, height=8, width=8)),
        ("pictures", Images(rows=1, height=480, width=640, differ=True, validation=1, classes=(90, 10))),
        ("pictures", Images(rows=1, height=28, width=28, sequences=True)),
        ("series", Courses(rows=1)),
        ("series", Courses(rows=1, channels=9, long=90_000, longest=200_000, validation=1, classes=(90, 10))),
        ("texts", Texts(rows=1, given={"data.tokenizer": "dna"})),
    ],
)
def test_each_option_is_chosen_once_and_announced(name, measured, rows):
    choices = named(name).choose(replace(measured, rows=rows))
    options = [choice.option for choice in choices]
    assert len(set(options)) == len(options)
    assert set(options) <= set(named(name).options)
    assert all(choice.why for choice in choices)
    assert f"{rows:,} training" in replace(measured, rows=rows).sentence


def test_tables_end_at_their_limits():
    assert [by(STEPS, rows) for rows in (1, 300, 301, 1_000, 1_001, 10**9)] == [600, 600, 1_200, 1_200, 4_000, 4_000]


@pytest.mark.parametrize(
    ("rows", "batch", "given", "count", "words"),
    [
        (200, 16, {}, 48, "about 580 steps in all, for 200 rows"),
        (1_000, 16, {}, 20, "about 1,200 steps"),
        (100, 16, {}, 80, "the most, about 480 steps"),  # 600 steps would be 96 epochs
        (200, 16, {"data.batch_size": 8}, 24, "about 600 steps"),
        (200, 16, {"data.batch_size": 4, "trainer.accumulate_grad_batches": 2}, 24, "about 600 steps"),
        (50_000, 32, {}, 3, "about 4,700 steps"),
        (1_000_000, 32, {}, 3, "the fewest, about 94,000 steps"),
        (1, 16, {}, 80, "1 row"),
    ],
)
def test_epochs_make_the_steps(rows, batch, given, count, words):
    data = Measured(rows=rows, given=given)
    chosen = epochs(data, STEPS, batches(data, ((None, batch),), 1, 2**20, "bytes"))
    assert (chosen.option, chosen.value) == ("trainer.max_epochs", count)
    assert words in chosen.why


@pytest.mark.parametrize(
    ("rows", "longest", "size", "words"),
    [
        (100, 4_096, 16, "100 rows"),
        (5_000, 4_096, 32, "5,000 rows"),
        (5_000, 4_097, 16, "131,072 bytes at once"),
        (5_000, 10**9, 2, "of rows of up to 1,000,000,000"),
    ],
)
def test_batches_of_long_rows_are_small(rows, longest, size, words):
    chosen = batches(Measured(rows=rows), ((1_000, 16), (None, 32)), longest, 131_072, "bytes")
    assert (chosen.option, chosen.value) == ("data.batch_size", size)
    assert words in chosen.why


def test_uneven_classes_are_said_and_monitored():
    uneven = Measured(rows=400, validation=40, classes=(300, 90, 10))
    assert [(choice.option, choice.value) for choice in monitors(uneven)] == [("best.monitor", "val/f1")]
    assert "the greatest class has 300 rows, the smallest 10" in monitors(uneven)[0].why
    assert classes_in_words(uneven) == "3 classes of 10 to 300"
    assert monitors(replace(uneven, validation=0)) == []  # nothing to monitor
    even = replace(uneven, classes=(150, 150, 100))
    assert monitors(even) == []
    assert classes_in_words(even) == "3 classes"
    assert few(even) == "400 rows"
