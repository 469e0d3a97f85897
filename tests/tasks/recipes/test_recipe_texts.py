"""The recipe of texts: which options for how many texts of which lengths."""

import pytest
from small_data import texts, write_jsonl

from lambda_seq.models import accepted_options
from lambda_seq.models.sequence.stems import STEMS
from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.recipes.texts import OPTIONS, READERS, Texts, choose, measure


def chosen(given=None, **measured):
    measured = {"longest": measured.get("long", Texts.long)} | measured
    return {choice.option: choice.value for choice in choose(Texts(given=given or {}, **measured))}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (
            {"rows": 500, "median": 110, "long": 200},
            {
                "data.tokenizer": "words",
                "data.max_length": 64,
                "data.batch_size": 32,
                "model.options.stem": "ngrams",
                "model.options.df_power": 0.5,
                "model.options.tf": "log",
                "model.options.depth": 0,
                "model.label_smoothing": 0.2,
                "trainer.max_epochs": 34,  # 520 steps
            },
        ),
        (
            {"rows": 20_500, "median": 980, "long": 3_400},
            {"data.max_length": 704, "data.batch_size": 32, "model.optimizer.lr": 0.002, "trainer.max_epochs": 4},
        ),
        (  # words cost little, so all texts are read whole
            {"rows": 20_500, "median": 980, "long": 3_400, "longest": 8_000},
            {"data.max_length": 1_600, "data.batch_size": 32},
        ),
        (  # but for the longest
            {"rows": 20_500, "median": 980, "long": 3_400, "longest": 13_700},
            {"data.max_length": 2_048, "data.batch_size": 32},
        ),
        (  # bytes cost more
            {"rows": 20_500, "median": 980, "long": 3_400, "longest": 8_000, "words": 0.04},
            {"data.max_length": 3_456},
        ),
        (  # some are too long to be read at once
            {"rows": 690, "median": 32_768, "long": 32_768},
            {
                "data.max_length": 2_048,
                "data.part": "windows",
                "data.batch_size": 32,
                "model.options.tf": "natural",
                "trainer.max_epochs": 25,
            },
        ),
        (  # without spaces between words
            {"rows": 500, "median": 110, "long": 200, "words": 0.04},
            {
                "data.tokenizer": "bytes",
                "data.max_length": 256,
                "model.options.strides": [2, 2],
                "model.options.depth": 1,
                "model.label_smoothing": 0.1,
            },
        ),
        (
            {"rows": 20_500, "median": 980, "long": 3_400, "words": 0.04},
            {"data.max_length": 3_456, "model.options.strides": [2, 4, 2], "model.options.depth": 3},
        ),
        (
            {"rows": 2_000, "median": 3_000, "long": 40_000, "words": 0.04},
            {"data.tokenizer": "bytes", "data.max_length": 8_192, "data.part": "windows"},
        ),
        (  # about 0.26 tokens a byte
            {"rows": 690, "median": 32_768, "long": 32_768, "given": {"data.tokenizer": "train"}},
            {
                "data.tokenizer": "train",
                "data.max_length": 8_704,
                "data.pad_to_multiple": 256,
                "data.batch_size": 8,
                "model.options.dim": 96,
            },
        ),
        (
            {"rows": 507, "median": 16_000, "long": 60_000, "given": {"data.tokenizer": "train"}},
            {"data.max_length": 10_240, "data.part": "windows", "data.batch_size": 8},
        ),
    ],
)
def test_choices(measured, expected):
    found = chosen(**measured)
    assert {name: found.get(name) for name in expected} == expected
    assert ("data.part" in found) == ("data.part" in expected)
    assert ("model.options.strides" in found) == (found["data.tokenizer"] == "bytes")
    assert ("model.optimizer.fused" in found) == (found["data.tokenizer"] == "words")


def test_what_follows_from_a_given_tokenizer():
    long, short = {"rows": 500, "median": 30_000, "long": 31_000}, {"rows": 500, "median": 100, "long": 200}
    assert chosen({"data.tokenizer": "bytes"}, **long)["model.options.strides"] == [2, 4, 2]
    for tokenizer in ("train", "folder/tokenizer.json"):
        assert "model.options.strides" not in chosen({"data.tokenizer": tokenizer}, **short)


def test_what_follows_from_a_given_length():
    long = {"rows": 500, "median": 3_000, "long": 60_000}
    assert chosen(**long)["data.part"] == "windows"
    assert "data.part" not in chosen({"data.max_length": 1_000}, **long)
    # A longer piece takes smaller batches; a shorter one the same, so that lengths can be compared
    sizes = [chosen({"data.max_length": most}, rows=500, long=9_000)["data.batch_size"] for most in (64, 2_000, 32_768)]
    assert sizes == [32, 32, 2]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true", None])
def test_steps_in_one_piece_where_gradients_can_be_clipped(precision):
    """Lightning clips no gradients of a fused optimizer in mixed precision."""
    found = chosen({"trainer.precision": precision} if precision else {}, rows=500)
    assert ("model.optimizer.fused" in found) == (precision in ("bf16-true", None))


def test_hidden_words_are_not_guessed():
    found = chosen({"model.class_path": "lambda_seq.tasks.pretraining.MaskedPretraining"}, rows=500)
    assert (found["data.tokenizer"], found["model.options.stem"]) == ("bytes", "tokens")


def test_a_batch_of_nothing_is_left_to_the_data_module():
    assert chosen({"data.batch_size": 0}, rows=500)["trainer.max_epochs"] == 3


def test_many_texts_have_more_vectors_but_narrower_ones():
    """As many parameters, for fewer texts and for more."""
    few, many = (chosen(rows=rows) for rows in (10_000, 10_001))
    sizes = [(found["model.options.buckets"], found["model.options.dim"]) for found in (few, many)]
    assert sizes == [(2**18, 64), (2**20, 16)]
    assert [found["model.options.token_dropout"] for found in (few, many)] == [0.3, 0.5]


def test_what_recurs_counts_in_long_texts():
    """By the median text, of about 0.2 words a byte."""
    found = [chosen(rows=2_000, median=median, long=20_000)["model.options.tf"] for median in (10_240, 10_241)]
    assert found == ["log", "natural"]


def test_another_stem_has_no_hashes():
    found = chosen({"data.tokenizer": "words", "model.options.stem": "tokens"}, rows=20_500)
    assert not {f"model.options.{name}" for name in ("orders", "buckets", "df_power", "tf")} & found.keys()


def test_the_stem_of_n_grams_reads_words():
    found = chosen({"model.options.stem": "ngrams"}, rows=20_500, words=0.04)
    assert (found["data.tokenizer"], found["model.options.pool"]) == ("words", "sqrt")


@pytest.mark.parametrize("reader", [one for one in READERS.values() if one.options["stem"] in STEMS])
def test_the_network_takes_what_is_chosen(reader):
    names = {*reader.options, *reader.by_length, *reader.by_rows}
    assert names <= accepted_options("lambda_encoder")
    assert {f"model.options.{name}" for name in names} <= set(OPTIONS)


def test_texts_are_measured(tmp_path):
    rows = [*texts(39), {"text": "Ünïcode – a cat, 12 dogs. " * 100, "label": "canine"}]
    file = write_jsonl(tmp_path / "texts.jsonl", rows)
    found = measure(TextData(str(file), validation_fraction=0.25))
    assert (found.rows, found.validation) == (30, 10)
    assert sum(found.classes) == 30
    plain = measure(TextData(str(file), validation_fraction=0))
    sizes = sorted(len(row["text"].encode()) for row in rows)
    assert plain.median == sizes[20]  # at least half of them have no more
    assert (plain.long, plain.longest) == (sizes[38], sizes[39])
    assert plain.validation == 0
    assert plain.classes == (21, 19)
    assert 0.15 < plain.words < 0.35
    assert "40 training texts, median" in plain.sentence
    assert plain.sentence.endswith("2 classes")


def test_texts_without_a_word_are_measured(tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", [{"text": "", "label": label} for label in "ab" * 5])
    found = measure(TextData(str(file)))
    assert (found.median, found.long, found.longest) == (0, 0, 0)
    assert chosen(rows=9, median=0, long=0)["data.max_length"] == 64
