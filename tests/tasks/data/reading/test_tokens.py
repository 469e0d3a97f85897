"""Text to ids and back."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lambda_seq.models.words import word_ids
from lambda_seq.tasks.data.reading.tokens import Tokens, _pieces

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "naïve café, naïve cat", "", "世界 世界"] * 4
TEXT = "The naïve cat\r\n\tsat  on 世界 👋🏽 \x00"


@pytest.fixture
def trained(tmp_path):
    return Tokens.train(TEXTS, 300, folder=tmp_path / "kept")


def words(*special):
    """A tokenizer of words, with these tokens besides."""
    known = {word: index for index, word in enumerate(["[UNK]", "the", "cat", "sat"])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def test_bytes_are_ids_minus_one():
    tokens = Tokens()
    assert tokens.encode("aé").tolist() == [98, 0xC3 + 1, 0xA9 + 1]
    assert tokens.encode(bytes(range(256))).tolist() == list(range(1, 257))
    assert tokens.encode("a").dtype == np.int64
    assert (tokens.vocab_size, tokens.pad, tokens.kind, tokens.tokenizer) == (257, 0, "bytes", None)
    assert tokens.decode([*tokens.encode(TEXT), 0, 0]) == TEXT


@pytest.mark.parametrize("kind", ["bytes", "trained"])
def test_empty_one_byte_and_undecodable_documents(kind, trained):
    tokens = Tokens() if kind == "bytes" else trained
    for empty in ("", b""):
        assert tokens.encode(empty).shape == (0,)
        assert tokens.encode(empty).dtype == np.int64
    assert tokens.decode([]) == ""
    assert len(tokens.encode(b"x")) == 1
    assert tokens.decode(tokens.encode(b"x")) == "x"
    assert tokens.decode(tokens.encode(b"cat \xff\xfe dog")) == "cat \ufffd\ufffd dog"
    assert tokens.decode(tokens.encode("cat \ud800 dog")) == "cat ? dog"  # half of a pair is no character
    if kind == "bytes":
        assert tokens.encode(b"\xff").tolist() == [256]


def test_words_are_hashes():
    tokens = Tokens(words=True)
    assert tokens.encode(TEXT).tolist() == word_ids(TEXT)
    assert tokens.encode("Cat cat").tolist() == [tokens.encode(b"cat")[0]] * 2
    assert (tokens.vocab_size, tokens.pad, tokens.kind, tokens.tokenizer) == (2**31, 0, "words", None)
    assert [ids.tolist() for ids in tokens.encode_all(TEXTS)] == [word_ids(text) for text in TEXTS]
    assert tokens.encode("").shape == (0,)
    assert tokens.encode(" \n").dtype == np.int64
    assert tokens.encode(b"cat \xff").tolist() == word_ids("cat \ufffd")
    with pytest.raises(ValueError, match=r"ids: those of words are hashes, from which no text comes back; use bytes"):
        tokens.decode([1])
    with pytest.raises(ValueError, match=r"words=True with a tokenizer: .*leave one out"):
        Tokens(words(), words=True)


def test_tokens_by_the_name_that_data_modules_have():
    def texts():
        return TEXTS

    assert [Tokens.named(name, texts, 260).kind for name in ("bytes", "words", "train")] == [
        *("bytes", "words", "tokenizer")
    ]
    with pytest.raises(FileNotFoundError, match=r"tokenizer='word': there is no such file.*\"words\", or \"bytes\""):
        Tokens.named("word", texts, 260)


def test_a_trained_tokenizer_is_shorter_and_loses_nothing(trained):
    assert 258 <= trained.vocab_size <= 300
    assert trained.pad == 0
    assert len(trained.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 2
    for text in (*TEXTS, TEXT, "".join(map(chr, range(0, 0xD800, 97)))):
        ids = trained.encode(text)
        assert trained.decode(ids) == text
        assert 0 not in ids


def test_training_is_deterministic_and_done_once(trained, tmp_path, monkeypatch):
    again = Tokens.train([text.encode() for text in TEXTS], 300, folder=tmp_path / "other")
    assert again.facts == trained.facts
    assert Tokens.train(TEXTS, 280, folder=tmp_path / "kept").fingerprint != trained.fingerprint
    assert Tokens.train(TEXTS[:3], 300, folder=tmp_path / "kept").fingerprint != trained.fingerprint
    names = sorted(file.name for file in (tmp_path / "kept").iterdir())
    assert len(names) == 3
    assert names[0].startswith("bpe-280-")  # nothing half done is left beside them
    monkeypatch.setattr("lambda_seq.tasks.data.reading.tokens.trainers", None)
    assert Tokens.train(TEXTS, 300, folder=tmp_path / "kept").facts == trained.facts
    assert Tokens.train(TEXTS, 300, folder=tmp_path / "kept").vocab_size == trained.vocab_size


def test_many_texts_at_once(trained):
    for tokens in (Tokens(), trained):
        for text, ids in zip(TEXTS, tokens.encode_all(TEXTS), strict=True):
            assert ids.dtype == np.int64
            assert ids.tolist() == tokens.encode(text).tolist()


def test_a_long_text_is_learnt_in_pieces_with_the_same_result(tmp_path, monkeypatch):
    texts = ["the cat  sat\n on the mat, " * 40 + "naïve 世界" * 30, "no white space" * 20, "", b"\xff a b" * 30]
    whole = Tokens.train(texts, 300, folder=tmp_path / "whole")
    for piece in (1, 7, 64):
        monkeypatch.setattr("lambda_seq.tasks.data.reading.tokens.PIECE", piece)
        assert "".join(_pieces(texts[0])) == texts[0]
        assert max(map(len, _pieces(texts[0]))) < 200 + piece
        assert Tokens.train(texts, 300, folder=tmp_path / str(piece)).facts == whole.facts


def test_a_tokenizer_is_given_few_characters_at_once(trained, monkeypatch):
    monkeypatch.setattr("lambda_seq.tasks.data.reading.tokens.ENCODED", 50)
    given = []

    class Watched:
        def encode_batch_fast(self, batch, **options):
            given.append([len(text) for text in batch])
            return trained_tokenizer.encode_batch_fast(batch, **options)

    trained_tokenizer = trained.tokenizer
    monkeypatch.setattr(trained, "tokenizer", Watched())
    texts = [*TEXTS, TEXTS[0] * 20, *TEXTS]
    found = [ids.tolist() for ids in trained.encode_all(texts)]
    monkeypatch.setattr(trained, "tokenizer", trained_tokenizer)
    assert found == [trained.encode(text).tolist() for text in texts]
    assert all(sum(sizes) <= 50 or len(sizes) == 1 for sizes in given)
    assert [len(TEXTS[0]) * 20] in given


def test_the_name_of_a_special_token_is_text_like_any_other(trained):
    text = "cat <pad> dog [PAD]"
    assert trained.decode(trained.encode(text)) == text
    assert Tokens.from_facts(trained.facts).encode("<pad>").tolist() == trained.encode("<pad>").tolist() != [0]


def test_a_tokenizer_is_loaded_without_its_template_truncation_and_padding(tmp_path):
    tokenizer = words("[PAD]", "[CLS]")
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 5)])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(pad_id=4, pad_token="[PAD]", length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        tokens = Tokens.load(str(name))
        assert (tokens.pad, tokens.vocab_size) == (4, 6)
        assert tokens.encode("the cat sat the dog").tolist() == [1, 2, 3, 1, 0]
        assert tokens.decode([1, 2, 4, 4]) == "the cat"
    assert tokenizer.truncation  # the tokenizer that is given stays as it is
    assert Tokens(tokenizer).tokenizer.truncation is None


def test_a_tokenizer_without_padding_gets_it():
    tokens = Tokens(words())
    assert (tokens.pad, tokens.vocab_size) == (4, 5)
    assert tokens.tokenizer.id_to_token(4) == "<pad>"
    assert Tokens(tokens.tokenizer).facts == tokens.facts


def test_facts_are_primitives_that_rebuild_it(trained):
    for tokens in (Tokens(), Tokens(words=True), trained, Tokens(words())):
        facts = json.loads(json.dumps(tokens.facts))
        assert facts == tokens.facts
        again = Tokens.from_facts(facts)
        assert again.facts == facts
        assert again.encode(TEXT).tolist() == tokens.encode(TEXT).tolist()
    assert Tokens().facts == {"kind": "bytes", "vocab_size": 257, "pad": 0, "fingerprint": "bytes"}
    lower = words()
    lower.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("t")
    assert Tokens(lower).fingerprint != Tokens(words()).fingerprint  # the same words, but cut otherwise


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "letters"}, r"kind='letters' of tokens; expected one of 'bytes', 'words', 'tokenizer'"),
        ({"kind": "words"}, r"the words have the fingerprint \w{16}, not"),
        ({"fingerprint": "0" * 16}, "not 0000000000000000 as they say"),
        ({"json": "{}"}, "not readable as a tokenizer"),
    ],
)
def test_facts_that_do_not_fit(trained, change, message):
    with pytest.raises(ValueError, match=message):
        Tokens.from_facts(trained.facts | change)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match=r"vocab_size=257: expected at least 258"):
        Tokens.train(TEXTS, 257, folder=tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer='train': the training texts are all empty"):
        Tokens.train(["", ""], 300, folder=tmp_path)
    with pytest.raises(TypeError, match="can be gone through only once: give a list"):
        Tokens.train(iter(TEXTS), 300, folder=tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken.json is not readable as a tokenizer"):
        Tokens.load(str(tmp_path / "broken.json"))
    with pytest.raises(FileNotFoundError, match=r"tokenizer='nobody/nothing': there is no such file.*hub"):
        Tokens.load("nobody/nothing")
    for wrong in (-1, 257):
        with pytest.raises(ValueError, match=rf"ids: {wrong} is no token; expected 0 ≤ id < vocab_size=257"):
            Tokens().decode([5, wrong])


@pytest.mark.parametrize("byte_level", [False, True])
@pytest.mark.parametrize("unknown", [None, "[UNK]"])
def test_characters_that_a_loaded_tokenizer_drops_are_said(tmp_path, unknown, byte_level, caplog):
    letters = [*pre_tokenizers.ByteLevel.alphabet()] if byte_level else ["a", "b"]
    known = {word: index for index, word in enumerate(["[UNK]", *sorted(letters)])}
    tokenizer = Tokenizer(models.BPE(known, [], unk_token=unknown))
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokens = Tokens.load(str(tmp_path))
    drops = unknown is None and not byte_level
    assert (len(tokens.encode("aèb")) == 2) == drops
    assert ("characters that it does not know: they are left out" in caplog.text) == drops


def test_a_loaded_tokenizer_that_fails_at_unknown_words(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer=.*cannot read words that it does not know.*; give it an unknown"):
        Tokens.load(str(tmp_path))
