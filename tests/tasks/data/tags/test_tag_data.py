"""Texts with labels of words: every form that people have them in, what becomes of them, and what cannot be read."""

import gzip
import json
from itertools import islice

import datasets
import numpy as np
import pytest
import torch
from small_data import write_jsonl

from lambda_seq.inference.tagging import entities
from lambda_seq.models.heads import IGNORED
from lambda_seq.tasks.data import TagData
from lambda_seq.tasks.data.batches import answer_by_word
from lambda_seq.tasks.data.reading import notes
from lambda_seq.tasks.data.tags.letters import LETTERS
from lambda_seq.tasks.inspection.guessing import guessed
from lambda_seq.tasks.inspection.inspecting import inspect

TOKENS = [["EU", "rejects", "German", "call"], ["Zoë", "Müller", "sleeps"], ["in", "東京", "!"]]
TAGS = [["B-ORG", "O", "B-MISC", "O"], ["B-PER", "I-PER", "O"], ["O", "B-LOC", "O"]]
NAMES = ["O", "B-LOC", "B-MISC", "B-ORG", "B-PER", "I-PER"]
ROWS = [{"tokens": tokens, "tags": tags} for tokens, tags in zip(TOKENS, TAGS, strict=True)]
TEXTS = [
    {"text": "EU rejects German call", "spans": [{"start": 0, "end": 2, "label": "ORG"}]},
    {"text": "Zoë Müller sleeps", "spans": [{"start": 0, "end": 10, "label": "PER"}]},
    {"text": "nobody here", "spans": []},
]


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(notes, "_said", set())
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def data(path, **options):
    return TagData(str(path), **({"validation_fraction": 0} | options))


def read(found, split="train"):
    """Words and labels of the rows of a split, from the items that a network gets."""
    items = found.rows_as_items(found.split(split), split)
    for place in range(len(items)):
        item = items[place]
        yield (
            item["text"].spelled,
            [None if label == IGNORED else found.labels[label] for label in item["label"].tolist()],
        )


def same(found, tokens=TOKENS, tags=TAGS):
    assert list(read(found)) == list(zip(tokens, tags, strict=True))


def conll(rows=ROWS, separator=" ", columns=("-X-",)):
    lines = (
        "".join(
            separator.join([word, *columns, tag]) + "\n" for word, tag in zip(row["tokens"], row["tags"], strict=True)
        )
        for row in rows
    )
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["a.conll", "a.iob2", "a.txt", "a.tsv", "a.bio.gz"])
@pytest.mark.parametrize("separator", [" ", "\t", "  "])
def test_conll_files(tmp_path, name, separator, said):
    if name.endswith(".tsv") and separator != "\t":
        separator = "\t"
    content = f"-DOCSTART-{separator}-X-{separator}O\n\n" + conll(separator=separator) + "\n\n\n"
    raw = content.replace("\n", "\r\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    found = data(tmp_path / name)
    same(found)
    assert found.labels == NAMES
    assert "1 lines -DOCSTART- are no words and are left out" in said()


def test_columns_of_conll_files_are_chosen(tmp_path):
    (tmp_path / "a.conll").write_text("# a note\n1\tthe\tDET\tB-x\t_\n2\t#\tNOUN\tO\t_\n\n1\t\u00a0\tX\tO\t_\n")
    same(
        data(tmp_path / "a.conll", text_column="1", tag_column="-2"), [["the", "#"], ["\u00a0"]], [["B-x", "O"], ["O"]]
    )
    same(
        data(tmp_path / "a.conll", text_column="1", tag_column="2"),
        [["the", "#"], ["\u00a0"]],
        [["DET", "NOUN"], ["X"]],
    )
    with pytest.raises(ValueError, match=r"tag_column=5: .*a.conll has 5 columns; expected a number from -5 to 4"):
        data(tmp_path / "a.conll", tag_column="5").setup()
    with pytest.raises(ValueError, match=r"text_column='form': .*has columns without names; expected a number, 0 for"):
        data(tmp_path / "a.conll", text_column="form").setup()


def test_universal_dependencies(tmp_path, said):
    rest = "\t_" * 6
    lines = ["# text = du pain", f"1-2\tdu\t_\t_{rest}", f"1\tde\tde\tADP{rest}", f"2\tle\tle\tDET{rest}"]
    (tmp_path / "a.conllu").write_text("\n".join([*lines, f"2.1\tx\tx\tX{rest}", f"3\tpain\tpain\tNOUN{rest}", ""]))
    same(data(tmp_path / "a.conllu"), [["de", "le", "pain"]], [["ADP", "DET", "NOUN"]])
    assert "the parts of speech (UPOS) are read as tags" in said()


def test_splits_of_a_folder_of_conll_files(tmp_path):
    for name in ("eng.train.txt", "eng.dev.txt", "eng.test.txt"):
        (tmp_path / name).write_text(conll())
    (tmp_path / "README.md").write_text("about")
    found = data(tmp_path)
    assert sorted(found.splits) == ["test", "train", "validation"]
    same(found)


def forms(folder):
    features = datasets.Features(
        tokens=datasets.List(datasets.Value("string")), ner_tags=datasets.List(datasets.ClassLabel(names=NAMES))
    )
    numbers = [[NAMES.index(tag) for tag in tags] for tags in TAGS]
    hub = datasets.Dataset.from_dict({"tokens": TOKENS, "ner_tags": numbers}, features=features)
    hub.to_parquet(folder / "hub.parquet")
    datasets.DatasetDict(train=hub).save_to_disk(folder / "saved")
    write_jsonl(folder / "lists.jsonl", ROWS)
    write_jsonl(folder / "words.jsonl", [{"Words": row["tokens"], "labels": row["tags"]} for row in ROWS])
    joined = [{"sentence": " ".join(row["tokens"]), "tags": " ".join(row["tags"])} for row in ROWS]
    (folder / "joined.csv").write_text("sentence,tags\n" + "".join(f"{r['sentence']},{r['tags']}\n" for r in joined))
    cells = "".join(f'"{row["tokens"]}","{row["tags"]}"\n' for row in ROWS)  # as pandas writes lists
    (folder / "pandas.csv").write_text("tokens,tags\n" + cells)
    return [
        folder / name for name in ("hub.parquet", "saved", "lists.jsonl", "words.jsonl", "joined.csv", "pandas.csv")
    ]


def test_lists_of_words_and_labels(tmp_path):
    for file in forms(tmp_path):
        found = data(file)
        same(found)
        assert found.labels == NAMES


def test_numbers_without_names(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"tokens": ["a", "b", "c"], "tags": [10, 2, -100]}])
    same(data(tmp_path / "a.jsonl"), [["a", "b", "c"]], [["10", "2", None]])
    assert data(tmp_path / "a.jsonl").labels == ["2", "10"]


def spans(folder):
    write_jsonl(folder / "spans.jsonl", TEXTS)
    lists = [
        {"text": row["text"], "label": [[s["start"], s["end"], s["label"]] for s in row["spans"]]} for row in TEXTS
    ]
    write_jsonl(folder / "lists.jsonl", lists)
    cells = "".join(r["text"] + ',"' + json.dumps(r["spans"]).replace('"', '""') + '"\n' for r in TEXTS)
    (folder / "cells.csv").write_text("text,entities\n" + cells)
    kinds = datasets.ClassLabel(names=["LOC", "ORG", "PER"])
    one = {"start": datasets.Value("int32"), "end": datasets.Value("int32"), "type": kinds}
    numbers = [
        [{"start": s["start"], "end": s["end"], "type": kinds.str2int(s["label"])} for s in row["spans"]]
        for row in TEXTS
    ]
    features = datasets.Features(text=datasets.Value("string"), entities=datasets.List(one))
    datasets.Dataset.from_dict({"text": [r["text"] for r in TEXTS], "entities": numbers}, features=features).to_parquet(
        folder / "hub.parquet"
    )
    return [folder / name for name in ("spans.jsonl", "lists.jsonl", "cells.csv", "hub.parquet")]


def test_texts_with_spans(tmp_path):
    expected = [["B-ORG", "O", "O", "O"], ["B-PER", "I-PER", "O"], ["O", "O"]]
    for file in spans(tmp_path):
        found = data(file)
        same(found, [row["text"].split() for row in TEXTS], expected)
        assert found.labels == ["O", "B-ORG", "I-ORG", "B-PER", "I-PER"]


def test_spans_within_words(tmp_path, said):
    row = {"text": "a東京b x", "spans": [{"start": 1, "end": 3, "label": "LOC"}]}
    write_jsonl(tmp_path / "a.jsonl", [row, TEXTS[1]])
    ((words, labels), _) = read(data(tmp_path / "a.jsonl"))
    assert (words, labels) == (["a東京b", "x"], ["B-LOC", "O"])
    assert "in 1 rows a span begins or ends within a word, all of which is taken for it: row 0" in said()
    ((words, labels), _) = read(data(tmp_path / "a.jsonl", units="characters"))
    assert words == list("a東京bx")
    assert entities(labels) == [("LOC", 1, 3)]


def span(begin, end):
    return {"start": begin, "end": end, "label": "x"}


WRONG = {
    "labels of other length": (
        [{"tokens": ["a", "b"], "tags": ["O"]}],
        r"train split of path=.*: row 0: 1 labels in column 'tags' for 2 words in column 'tokens'; give each word one",
    ),
    "one label": ([{"tokens": ["a", "b"], "tags": ["O", "O"]}], r"all training words have the same label, or none"),
    "a row without labels": (
        [ROWS[0], {"tokens": ["a"], "tags": None}],
        r"1 of 2 rows have no labels in column 'tags': row 1; label them, or leave them out: --data.drop_incomplete",
    ),
    "labels that are none": ([{"tokens": ["a"], "tags": [1.5]}], r"row 0: 1.5 in column 'tags' is no label"),
    "words that are none": ([{"tokens": [1, 2], "tags": ["O", "X"]}], r"row 0: 1 in column 'tokens' is no word"),
    "no labels": (
        [{"tokens": ["a"], "other": 1}],
        r"no column chosen for tag_column: none is called spans or .*Name the",
    ),
    "spans that overlap": (
        [{"text": "a b c", "spans": [span(0, 3), span(2, 5)]}],
        r"row 0: the span \[2, 5, 'x'\] overlaps \[0, 3, 'x'\]; keep one of them, a word has one label",
    ),
    "a span outside": (
        [{"text": "a b c", "spans": [span(2, 9)]}],
        r"row 0: the span \[2, 9, 'x'\] is none of a text of 5 characters; expected 0 ≤ start < end ≤ 5",
    ),
    "a span of nothing": ([{"text": "a b", "spans": [span(1, 1)]}], r"the span \[1, 1, 'x'\] is none of a text of 3"),
    "a span of a space": ([{"text": "a b", "spans": [span(1, 2)]}], r"the span \[1, 2, 'x'\], ' ', holds no word"),
    "two spans in a word": (
        [{"text": "abc d", "spans": [span(0, 1), span(1, 3)]}],
        r"\[1, 3, 'x'\] and \[0, 1, 'x'\] share the word 'abc'; label characters: --data.units characters",
    ),
    "a span without an end": (
        [{"text": "abc d", "spans": [{"start": 0, "label": "x"}]}],
        r"row 0, column 'spans': .* is no span; expected \{\"start\": 0, \"end\": 5, \"label\": \"NAME\"\}, or \[0, 5",
    ),
}


@pytest.mark.parametrize(("rows", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read(tmp_path, rows, message):
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        data(tmp_path / "a.jsonl").setup()


def test_lines_that_do_not_fit(tmp_path):
    (tmp_path / "a.conll").write_text("a O\nb O\nc B-x\nd e B-x\n")
    with pytest.raises(
        ValueError, match=r"a.conll, line 4: 3 columns, where others have 2: 'd e B-x'; correct it, or put"
    ):
        data(tmp_path / "a.conll").setup()


def test_a_label_that_training_does_not_know(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "test.jsonl", [ROWS[0], {"tokens": ["a"], "tags": ["B-new"]}])
    with pytest.raises(
        ValueError, match=r"test split of path=.*: row 1 has the label 'B-new', which no training row has"
    ):
        data(tmp_path).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": "letters"}, r"units='letters': expected one of words, spaces, characters"),
        ({"max_length": 0}, r"max_length=0: expected at least 1 token"),
        ({"max_length": 8, "stride": 9}, r"stride=9 with max_length=8: expected 1 to max_length"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        TagData("a.conll", **options)


def test_rows_without_labels_are_left_out_or_predicted(tmp_path, said):
    write_jsonl(tmp_path / "train.jsonl", [*ROWS, {"tokens": ["a"], "tags": None}])
    write_jsonl(tmp_path / "test.jsonl", [{"tokens": ["a"]}])
    found = data(tmp_path, drop_incomplete=True)
    same(found)
    assert not found.tested
    assert "label" not in next(iter(found.predict_dataloader()))
    assert "1 of 4 rows are left out, 1 without a label" in said()


def test_a_batch_has_labels_at_words_alone(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    found = data(tmp_path / "a.jsonl", pad_to_multiple=4)
    items = found.rows_as_items(found.split("train"), "train")
    batch = found.collate([items[row] for row in range(3)])
    assert batch["words"].tolist() == [4, 3, 3]
    assert batch["label"].shape == batch["position"].shape == (3, 4)
    assert (batch["label"] == IGNORED).tolist() == [[False] * 4, [False] * 3 + [True], [False] * 3 + [True]]
    assert batch["x"].shape[1] % 4 == 0
    for row, tokens in enumerate(TOKENS):
        raw = " ".join(tokens).encode()
        assert bytes(batch["x"][row][batch["mask"][row]].numpy().astype(np.uint8) - 1) == raw
        for word, place in zip(tokens, batch["position"][row].tolist(), strict=False):
            assert raw[place:].startswith(word.encode())


def test_long_texts_are_read_in_windows_that_answer_each_word_once(tmp_path, said):
    words = [f"w{place}" for place in range(50)]
    write_jsonl(tmp_path / "a.jsonl", [{"tokens": words, "tags": ["B-x", "O"] * 25}, ROWS[0]])
    found = data(tmp_path / "a.jsonl", max_length=32)
    training = found.rows_as_items(found.split("train"), "train", training=True)
    assert len(training) > 5
    assert training.lengths.max() == 32
    counted = []
    for place in range(len(training)):
        item = training[0, place]
        text = bytes(item["x"].numpy().astype(np.uint8) - 1).decode()
        own = [text[at:].split()[0] for at in item["position"].tolist()]
        counted += own
        assert len(item["label"]) == len(own)
        assert len(item["x"]) == training.lengths[place] <= 32
    assert len(counted) == 54
    whole = found.rows_as_items(found.split("train"), "train")[0]
    assert len(whole["windows"]) == len(training) - 1
    assert "1 of 2 texts have more than max_length=32 tokens and are read in overlapping windows, " in said()


def test_windows_by_some_at_a_time_answer_as_all_at_once(tmp_path):
    words = [f"w{place}" for place in range(40)]
    write_jsonl(tmp_path / "a.jsonl", [{"tokens": words, "tags": ["B-x", "O"] * 20}, *ROWS])
    found = data(tmp_path / "a.jsonl", max_length=32, pad_to_multiple=1, batch_size=100)
    items = found.rows_as_items(found.split("train"), "train")
    batch = found.collate([items[row] for row in range(4)])

    def network(x, mask):
        return torch.stack([x.double(), x.double().square()], -1)

    expected = answer_by_word(network, batch)
    assert torch.equal(answer_by_word(network, batch | {"at_once": 3}), expected)
    calls = []

    def counted(x, mask):
        calls.append(len(x))
        return network(x, mask)

    few = batch | {"at_once": 3}
    assert torch.equal(answer_by_word(counted, few, lambda needed: needed + 2), expected)  # as another process has more
    assert len(calls) == -(-len(batch["x"]) // 3) + 2
    firsts = [[ord(word.encode("utf-8")[:1].decode("latin-1")) + 1 for word in row] for row in (words, *TOKENS)]
    for row, first in enumerate(firsts):
        assert expected[row, : len(first), 0].tolist() == first


@pytest.mark.parametrize("tokenizer", ["words", "train"])
def test_tokens_of_other_kinds(tmp_path, tokenizer):
    write_jsonl(tmp_path / "a.jsonl", ROWS * 5)
    found = data(tmp_path / "a.jsonl", tokenizer=tokenizer, vocab_size=280)
    item = found.rows_as_items(found.split("train"), "train")[0]
    assert len(item["position"]) == 4
    assert found.facts.tokens.units == "words"
    if tokenizer == "train":
        first = [found.tokens.decode([int(item["x"][place])]) for place in item["position"].tolist()]
        assert all(word.startswith(one.strip()) for word, one in zip(TOKENS[0], first, strict=True))


def test_facts_count_words(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    facts = data(tmp_path / "a.jsonl").facts
    assert facts.labels == NAMES
    assert facts.target.kind == "tags"
    assert facts.target.rows == 10
    assert facts.target.counts == [5, 1, 1, 1, 1, 1]
    assert type(facts).from_dict(facts.to_dict()) == facts


def test_held_out_rows_and_order_are_the_same_each_time(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROWS * 10)
    one, two = (data(tmp_path / "a.jsonl", validation_fraction=0.2, batch_size=4) for _ in range(2))
    assert np.array_equal(one.split("train").indices, two.split("train").indices)
    assert len(one.split("validation")) == 6
    batches = [[batch["id"] for batch in islice(found.train_dataloader(), 3)] for found in (one, two)]
    assert batches[0] == batches[1]


def test_generated_letters_are_the_same_each_time():
    one, two = (TagData().load_tables(LETTERS) for _ in range(2))
    assert {name: len(table) for name, table in one.items()} == {"train": 800, "validation": 150, "test": 200}
    assert one["test"][:10] == two["test"][:10]
    kinds = {kind for row in one["test"] for kind, *_ in entities(row["tags"])}
    assert kinds == {"PER", "LOC", "ORG"}
    assert all(len(row["tokens"]) == len(row["tags"]) for row in one["test"])


def test_the_configuration_is_found_by_the_data(tmp_path):
    (tmp_path / "a.conll").write_text(conll())
    files = [tmp_path / "a.conll", *forms(tmp_path)[:4], *spans(tmp_path)]
    assert [guessed(str(file))[0] for file in files] == ["tagging"] * 9
    write_jsonl(tmp_path / "texts.jsonl", [{"words": "a b", "label": "x"}, {"words": "c", "label": "y"}] * 3)
    assert guessed(str(tmp_path / "texts.jsonl"))[0] == "text_classification"
    (tmp_path / "prose.txt").write_text("Some prose\nwithout a label.\n\nAnd more of it.\n")
    assert guessed(str(tmp_path / "prose.txt"))[0] == "language_modelling"


def test_what_is_looked_at(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [*ROWS, {"tokens": ["x"], "tags": None}])
    write_jsonl(tmp_path / "test.jsonl", ROWS[:1])
    found = inspect(data(tmp_path), tmp_path / "found")
    assert (found.target, found.unit) == ("tags", "words")
    assert found.splits["train"]["classes"] == {"O": 3, "B-LOC": 1, "B-MISC": 1, "B-ORG": 1, "B-PER": 1, "I-PER": 1}
    assert found.splits["train"]["lengths"]["longest"] == 4
    assert any("EU/B-ORG rejects/O German/B-MISC call/O" in one["shown"] for one in found.examples)
    assert {"duplicates", "unlabelled"} <= {finding.kind for finding in found.findings}
