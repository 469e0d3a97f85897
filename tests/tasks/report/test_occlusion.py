"""Which words matter: of a network whose answer is known to hang on one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_data import texts, write_jsonl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lambda_seq.models.heads import Classes
from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.report import occlusion
from lambda_seq.tasks.report.findings import Wrong
from lambda_seq.tasks.report.occlusion import explained, occluded, pieces_of

TEXT = "A dull film, until the marvellous naïve ending saves it."


class Counting(torch.nn.Module):
    """Says class 1 as often as an id occurs."""

    def __init__(self, known: int) -> None:
        super().__init__()
        self.known, self.device = known, torch.device("cpu")
        self.network = SimpleNamespace(objective=Classes())

    def forward(self, batch):
        count = ((batch["x"] == self.known) & batch["mask"]).sum(1).float()
        return torch.stack([torch.zeros_like(count), 4 * count - 2], 1)


def wrong(ids, sign=1):
    return Wrong((0.9, 1, sign, 0.1, 0), "0", x=torch.as_tensor(ids))


def bpe() -> Tokens:
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(ALPHABET)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return Tokens(tokenizer)


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("tokens", [Tokens(), bpe()], ids=["bytes", "tokenizer"])
def test_pieces_are_all_that_was_read(tokens):
    ids = tokens.encode(TEXT)
    pieces = pieces_of(ids, tokens, None, "test", "0")
    assert sum(size for _, size in pieces) == len(ids)
    if tokens.kind == "bytes":
        assert "".join(text for text, _ in pieces) == TEXT
        assert (" naïve", 7) in pieces


@pytest.fixture
def data(tmp_path):
    rows = [{"text": TEXT, "label": "good"}, {"text": "İ Short", "label": "bad"}]
    write_jsonl(tmp_path / "texts" / "train.jsonl", texts(8) + [row | {"label": "feline"} for row in rows])
    write_jsonl(tmp_path / "texts" / "test.jsonl", [row | {"label": "feline"} for row in rows])
    return TextData(str(tmp_path / "texts"), tokenizer="words", validation_fraction=0)


def test_words_come_from_the_data(data):
    tokens = Tokens(words=True)
    ids = tokens.encode(TEXT)
    pieces = pieces_of(ids, tokens, data, "test", "0")
    assert "".join(text for text, _ in pieces) == TEXT
    assert len(pieces) == len(ids)
    assert pieces[:3] == [("A ", 1), ("dull ", 1), ("film", 1)]
    part = pieces_of(ids[3:6], tokens, data, "test", "0")  # as a longer text is read
    assert [text for text, _ in part] == [", ", "until ", "the "]
    assert pieces_of(ids + 1, tokens, data, "test", "0") is None  # another text
    assert pieces_of(ids, tokens, data, "test", "no such row") is None
    assert pieces_of(ids, tokens, None, "test", "0") is None


def test_the_word_that_the_answer_hangs_on():
    tokens = Tokens(words=True)
    ids = tokens.encode(TEXT)
    marvellous = int(tokens.encode("marvellous")[0])
    pieces = [(f"{word} ", 1) for word in range(len(ids))]
    parts = occluded(Counting(marvellous), wrong(ids), pieces, tokens.pad)
    place = int(np.flatnonzero(ids == marvellous)[0])
    lost = float(torch.tensor(2.0).sigmoid() - torch.tensor(-2.0).sigmoid())
    assert [part.effect for part in parts] == pytest.approx([lost * (part == place) for part in range(len(parts))])


def test_long_texts_are_left_out_in_parts_and_one_word_altogether():
    tokens = Tokens(words=True)
    ids = np.arange(1, 1001)
    parts = occluded(Counting(500), wrong(ids), [(f"{word} ", 1) for word in ids], tokens.pad)
    assert len(parts) == occlusion.PARTS
    assert "".join(part.text for part in parts) == "".join(f"{word} " for word in ids)
    (told,) = [part for part in parts if part.effect]
    assert "500 " in told.text
    (only,) = occluded(Counting(7), wrong([7]), [("word", 1)], tokens.pad)
    assert only.effect > 0.5


def test_what_speaks_for_a_label_that_is_missed():
    ids = np.array([7, 8])
    pieces = [("seven ", 1), ("eight", 1)]
    said, missed = (occluded(Counting(7), wrong(ids, sign), pieces, 0) for sign in (1, -1))
    assert said[0].effect > 0.5
    assert [part.effect for part in missed] == [-part.effect for part in said]


def test_numbers_hang_on_no_parts(data):
    task, ids = Counting(7), Tokens(words=True).encode(TEXT)
    task.facts = data.facts
    (parts,) = explained(task, data, "test", [wrong(ids, sign=0)], "cpu")
    assert [tuple(part) for part in parts] == [(TEXT, None)]


def test_time_is_bounded(data, monkeypatch):
    task = Counting(int(Tokens(words=True).encode("marvellous")[0]))
    task.facts = data.facts
    ids = Tokens(words=True).encode(TEXT)
    (parts,) = explained(task, data, "test", [wrong(ids)], "cpu")
    assert max(part.effect for part in parts) > 0.5
    monkeypatch.setattr(occlusion, "SECONDS", 0)
    (parts,) = explained(task, data, "test", [wrong(ids)], "cpu")
    assert [tuple(part) for part in parts] == [(TEXT, None)]
