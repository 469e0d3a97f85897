"""Words, their tokens, the windows that answer them, entities, and predictors that answer for each word."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import lambda_seq
from lambda_seq.inference.tagging import Pieces, entities, has_entities, marked, pieces_with, read
from lambda_seq.inference.texts import Reading
from lambda_seq.inference.tokens import Tokens
from lambda_seq.models.words import word_ids

ODD = "Zoë's  naïve\u00a0U.S. 東京 👋🏽\tend"


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ("words", ["Zoë", "'", "s", "naïve", "U", ".", "S", ".", "東京", "👋", "🏽", "end"]),
        ("spaces", ["Zoë's", "naïve", "U.S.", "東京", "👋🏽", "end"]),
        ("characters", list("Zoë'snaïveU.S.東京👋🏽end")),
    ],
)
def test_words_of_a_text(units, expected):
    own = marked(ODD, units)
    assert own.text == ODD
    assert own.spelled == expected
    assert marked(["U.S.", "", "a b"], units).spelled == ["U.S.", "", "a b"]
    assert marked([], units) == ("", [])


def test_bytes_of_each_word_begin_where_it_does():
    own = marked(ODD, "characters")
    found = pieces_with(Tokens())(own)
    assert np.array_equal(found.ids, Tokens().encode(ODD))
    for (begin, end), first in zip(own.words, found.first, strict=True):
        raw = ODD[begin:end].encode()
        assert bytes((found.ids[first : first + len(raw)] - 1).astype(np.uint8)) == raw


def test_words_as_hashes_have_those_of_the_text():
    own = marked(["U.S.", "is", "Zoë's"], "words")
    found = pieces_with(Tokens(words=True))(own)
    assert found.ids.tolist() == word_ids("U.S. is Zoë's")
    assert found.first.tolist() == [0, 4, 5]


def word_pieces():
    """A tokenizer of word pieces, whose normalizer leaves nothing of some words."""
    names = ["[UNK]", "[PAD]", "un", "##happ", "##y", "dog", "##s", "!"]
    tokenizer = Tokenizer(models.WordPiece({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace("*", "")
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return Tokens(tokenizer)


def test_the_first_of_the_pieces_of_a_word():
    found = pieces_with(word_pieces())(marked(["unhappy", "***", "dogs", "zebra", "!"], "words"))
    assert found.ids.tolist() == [2, 3, 4, 1, 5, 6, 0, 7]  # of the word that is nothing, the id of padding
    assert found.first.tolist() == [0, 3, 4, 6, 7]
    text = pieces_with(word_pieces())(marked("unhappy\n dogs!", "words"))
    assert text.ids.tolist() == [2, 3, 4, 5, 6, 7]
    assert text.first.tolist() == [0, 3, 5]


def test_each_word_is_answered_by_the_window_with_most_around_it():
    pieces = Pieces(np.arange(25), np.arange(0, 25, 2))
    found = read(pieces, Reading(10, "windows", 5))
    assert found.begins == [0, 5, 10, 15]
    assert np.array_equal(np.array(found.begins)[found.window] + found.position, pieces.first)
    by_hand = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3]  # the first window has all before it, the last all behind it
    assert found.window.tolist() == by_hand
    whole = read(pieces, Reading(25, "windows", 5))
    assert whole.begins == [0]
    assert whole.position.tolist() == pieces.first.tolist()


ENTITIES = [  # by hand, as conlleval counts them
    ("O O", []),
    ("B-a I-a O B-a", [("a", 0, 2), ("a", 3, 4)]),
    ("B-a B-a I-b", [("a", 0, 1), ("a", 1, 2), ("b", 2, 3)]),
    ("O I-a I-a O I-b", [("a", 1, 3), ("b", 4, 5)]),
    ("B-a I-a E-a I-a", [("a", 0, 3), ("a", 3, 4)]),
    ("S-a S-a B-a E-a E-a", [("a", 0, 1), ("a", 1, 2), ("a", 2, 4), ("a", 4, 5)]),
    ("U-a L-a O B-b L-b", [("a", 0, 1), ("a", 1, 2), ("b", 3, 5)]),
    ("B I O I", [("entity", 0, 2), ("entity", 3, 4)]),
    ("B-a-b I-a-b", [("a-b", 0, 2)]),
    ("", []),
]


@pytest.mark.parametrize(("labels", "expected"), ENTITIES)
def test_entities_by_hand(labels, expected):
    assert entities(labels.split()) == expected


def test_which_labels_are_of_entities():
    assert has_entities(["O", "B-x", "I-x"])
    assert has_entities(["O", "B", "I"])
    assert not has_entities(["NOUN", "VERB"])
    assert not has_entities(["O", "PER"])
    assert not has_entities(["O"])
    assert not has_entities(["O", "E-x"])


LABELS = ["O", "B-x", "I-x"]


def predictor(folder, units="words", batch_size=32, **options):
    torch.manual_seed(0)
    network = {"dim": 8, "depth": 2, "heads": 2, "scope": 5, "vocab_size": 257, "num_classes": 3, "head": "positions"}
    model = lambda_seq.create_model("lambda_encoder", **(network | options)).eval()
    record = {"kind": "bytes", "pad": 0, "vocab_size": 257, "max_length": 64, "part": "windows", "stride": 32}
    saved = model.save_pretrained(
        folder, labels=LABELS, preprocessing={"version": 1, "tokens": {**record, "units": units}}
    )
    return lambda_seq.load_predictor(saved, batch_size=batch_size)


def test_a_predictor_answers_each_word(tmp_path):
    answers = predictor(tmp_path)
    assert answers.kind == "tagged text"
    text = "Zoë is in  東京!"
    found = answers(text)
    assert [word.text for word in found.words] == ["Zoë", "is", "in", "東京", "!"]
    assert all(text[word.start : word.end] == word.text for word in found.words)
    assert found.labels == [word.label for word in found.words]
    assert found.answer.shape == (5, 3)
    with torch.no_grad():
        each = answers.model(torch.tensor([list(text.encode())]) + 1).softmax(-1)[0]
    places = [len(text[: word.start].encode()) for word in found.words]
    assert np.allclose(found.answer, each[places], atol=1e-5)
    assert [word.probability for word in found.words] == pytest.approx(found.answer.max(-1).tolist())
    spans = [(span.label, span.start, span.end) for span in found.spans]
    words = found.words
    assert spans == [(kind, words[a].start, words[b - 1].end) for kind, a, b in entities(found.labels)]


def test_forms_of_inputs_and_neighbours_in_the_batch_change_nothing(tmp_path):
    answers = predictor(tmp_path, batch_size=2)
    (tmp_path / "a.txt").write_text("a b c")
    one = answers({"tokens": ["a", "b", "c"]})
    found = answers([["a", "b", "c"], "a b c", b"a b c", tmp_path / "a.txt", "a much longer text of many words", ""])
    assert [len(own.words) for own in found] == [3, 3, 3, 3, 7, 0]
    assert found[3].id == str(tmp_path / "a.txt")
    assert all(np.allclose(own.answer, one.answer, atol=1e-5) for own in found[:4])
    assert found[5].answer.shape == (0, 3)
    assert found[5].spans == []
    assert answers.embed(["a b c", "a"]).shape == (2, 8)
    with pytest.raises(TypeError, match=r"inputs\[0\]: 3 is no word: expected a text, or a list of words"):
        answers([["a", 3]])


def test_a_long_text_is_answered_to_its_last_word(tmp_path):
    answers = predictor(tmp_path, scope=3)
    text = "word and another " * 40
    found = answers(text)
    assert len(found.words) == 120
    with torch.no_grad():
        window = answers.model(torch.tensor([list(text.encode()[-64:])]) + 1)
    last = text.rindex("another")
    at = len(text.encode()) - 64
    assert np.allclose(found.answer[-1], window.softmax(-1)[0, last - at], atol=1e-5)
