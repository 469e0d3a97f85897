"""Letters of DNA and proteins, and the other strand."""

import numpy as np
import pytest

from lambda_seq.inference.alphabets import ALPHABETS, DNA, PROTEIN, reverse_complement
from lambda_seq.inference.tokens import Tokens

BASES = {"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"}  # what these letters stand for
BASES |= {"B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"} | {base: base for base in "ACGT"}
PAIRS = dict(zip("ACGT", "TGCA", strict=True))


def test_letters_are_ids():
    assert DNA.encode(b"ACGTN").tolist() == [1, 2, 3, 4, 5]
    assert DNA.encode(b"acgu \nT*").tolist() == [1, 2, 3, 4, 4, 5]
    assert PROTEIN.encode(b"MKx?").tolist()[2:] == [21, 21]
    assert DNA.decode(np.array([1, 0, 4, 16])) == "AT-"
    assert DNA.strangers(b"ACGX\nU?x") == {"?": 1, "X": 1, "x": 1}
    assert PROTEIN.strangers(b"MKTAYIAKQRBZXUO*-") == {}


def test_the_other_strand_pairs_what_letters_stand_for():
    for letter, bases in BASES.items():
        opposite = DNA.decode(reverse_complement(DNA.encode(letter.encode())))
        assert set(BASES[opposite]) == {PAIRS[base] for base in bases}
    assert DNA.decode(reverse_complement(DNA.encode(b"AACGN-"))) == "-NCGTT"
    ids = np.random.default_rng(0).integers(0, 17, 50)
    assert (reverse_complement(reverse_complement(ids)) == ids).all()
    with pytest.raises(ValueError, match="tokenizer='protein': only DNA has another strand"):
        _ = PROTEIN.opposite


@pytest.mark.parametrize("name", ALPHABETS)
def test_they_are_tokens(name):
    tokens = Tokens(alphabet=name)
    letters = ALPHABETS[name].letters
    assert tokens.encode(letters).tolist() == list(range(1, len(letters) + 1))
    assert tokens.decode([0, *tokens.encode(letters), 0]) == letters
    assert tokens.vocab_size == len(letters) + 1
    again = Tokens.from_facts(tokens.facts)
    assert (again.kind, again.fingerprint) == (name, tokens.fingerprint)
    assert tokens.encode("").shape == (0,)
    with pytest.raises(ValueError, match="fingerprint"):
        Tokens.from_facts(tokens.facts | {"fingerprint": "0"})
    with pytest.raises(ValueError, match=f"alphabet='{name}' with words"):
        Tokens(alphabet=name, words=True)
