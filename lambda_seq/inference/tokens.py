"""Text to token ids and back: bytes, words, letters of DNA or of proteins, or a tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Int

from lambda_seq.inference.alphabets import ALPHABETS
from lambda_seq.models import Model
from lambda_seq.models.inputs import WORD_IDS
from lambda_seq.models.words import word_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD = "<pad>"
PAD_NAMES = (PAD, "[PAD]", "<|pad|>", "<|padding|>", "<PAD>", "[pad]")  # by which loaded tokenizers call it
KINDS = ("bytes", "words", "tokenizer", *ALPHABETS)
SAMPLE = "It's 1984, and THE naïve Æther\tcosts 3.50 €:\n\n    привет, 世界! 👋🏽 <pad> [PAD] \ufffd"


class Tokens:
    """Text to token ids and back.

    Without a tokenizer a token is a byte: id 0 is padding, id 1 + b the byte b, 257 ids in all. Any bytes can be
    encoded, and come back from `decode` as the same text if they are UTF-8.

    With a tokenizer ids are its own. It reads text, so bytes that are no UTF-8 become U+FFFD "�" before. Its template
    ([CLS] …), truncation and padding are not applied, and a special token's name within a text is text: no document can
    smuggle in padding. A tokenizer without a padding token gets one, as its last id.

    Words are hashes, of any vocabulary: see `lambda_seq.models.words.word_ids`. No text comes back from them. Of them,
    too, bytes that are no UTF-8 become U+FFFD "�" before.

    Letters are those of an alphabet of biology, "dna" or "protein"; see `inference.alphabets`.

    An empty document has no tokens.

    Args:
        tokenizer: of the tokenizers library; copied. None for bytes, words or letters.
        words: whether tokens are words.
        alphabet: name of the one whose letters tokens are; None for none.

    Raises:
        ValueError: several of these.
    """

    def __init__(self, tokenizer: Tokenizer | None = None, *, words: bool = False, alphabet: str | None = None) -> None:
        self.tokenizer: Tokenizer | None = None
        self.alphabet = None if alphabet is None else ALPHABETS[alphabet]
        self.kind = alphabet or ("words" if words else "bytes" if tokenizer is None else "tokenizer")
        self.pad, self.vocab_size = 0, WORD_IDS if words else 257
        if words and tokenizer is not None:
            raise ValueError("words=True with a tokenizer: tokens are the one or the other; leave one out")
        if self.alphabet is not None:
            if words or tokenizer is not None:
                raise ValueError(f"alphabet={alphabet!r} with words or a tokenizer: leave one out")
            self.vocab_size = 1 + len(self.alphabet.letters)
        if tokenizer is not None:
            from tokenizers import Tokenizer

            own = Tokenizer.from_str(tokenizer.to_str())
            own.no_truncation()
            own.no_padding()
            own.encode_special_tokens = True  # as text; the setting is not part of the JSON
            vocabulary = own.get_vocab(with_added_tokens=True)
            given = (own.token_to_id(name) for name in PAD_NAMES)
            pad = next((index for index in given if index is not None), None)
            if pad is None:
                own.add_special_tokens([PAD])
                vocabulary = own.get_vocab(with_added_tokens=True)
                pad = vocabulary[PAD]
            self.tokenizer, self.pad, self.vocab_size = own, pad, max(vocabulary.values()) + 1

    @classmethod
    def of(cls, model: Model) -> Self:
        """Those that a saved model takes: of its tokenizer, or what its preprocessing says."""
        said = (model.preprocessing or {}).get("tokens")
        return cls(model.tokenizer, **options_of(said.get("kind") if isinstance(said, Mapping) else None))

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """What `facts` describes.

        Raises:
            ValueError: facts of another kind, or that the tokenizer in them does not have.
        """
        kind = facts.get("kind")
        if kind not in KINDS:
            raise ValueError(f"facts: kind={kind!r} of tokens; expected one of {', '.join(map(repr, KINDS))}")
        try:
            tokens = cls(_tokenizer(facts["json"])) if kind == "tokenizer" else cls(**options_of(kind))
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f'facts: their "json" is not readable as a tokenizer ({error})') from error
        if tokens.fingerprint != facts["fingerprint"]:
            raise ValueError(
                f"facts: the {kind} have the fingerprint {tokens.fingerprint}, not {facts['fingerprint']} as they say: "
                "the file was changed, or this version of the tokenizers library, or of Python, cuts text otherwise"
            )
        return tokens

    @property
    def facts(self) -> dict[str, Any]:
        """Primitives that rebuild it.

        "kind": "bytes", "words", "tokenizer", "dna" or "protein"; "vocab_size"; "pad": id of padding; "fingerprint";
        and of a tokenizer "json", the whole of it as the text of a tokenizer.json.
        """
        facts: dict[str, Any] = {
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "pad": self.pad,
            "fingerprint": self.fingerprint,
        }
        return facts if self.tokenizer is None else facts | {"json": self.tokenizer.to_str()}

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of what it does: its vocabulary, and how it cuts a sample text; "bytes" for bytes."""
        if self.kind == "bytes":
            return "bytes"
        if self.alphabet is not None:
            return hashlib.sha256(self.alphabet.letters.encode()).hexdigest()[:16]
        vocabulary = [] if self.tokenizer is None else sorted(self.tokenizer.get_vocab(with_added_tokens=True).items())
        content = json.dumps([vocabulary, self.pad, self.encode(SAMPLE).tolist()])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, text: bytes | str) -> Int[np.ndarray, " N"]:
        """Ids of a text, int64; none of an empty one."""
        if self.kind == "words":
            return np.array(word_ids(as_text(text)), dtype=np.int64)
        if self.alphabet is not None:
            return self.alphabet.encode(as_bytes(text))
        if self.tokenizer is None:
            return np.frombuffer(as_bytes(text), np.uint8).astype(np.int64) + 1
        return np.array(self.tokenizer.encode(as_text(text), add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids, without padding; bytes that are no UTF-8 appear as U+FFFD "�".

        Raises:
            ValueError: an id outside 0 ≤ id < vocab_size, or tokens are words.
        """
        if self.kind == "words":
            raise ValueError("ids: those of words are hashes, from which no text comes back; use bytes or a tokenizer")
        found = np.array(list(ids), dtype=np.int64)
        wrong = found[(found < 0) | (found >= self.vocab_size)]
        if len(wrong):
            raise ValueError(f"ids: {wrong[0]} is no token; expected 0 ≤ id < vocab_size={self.vocab_size}")
        found = found[found != self.pad]
        if self.alphabet is not None:
            return self.alphabet.decode(found)
        if self.tokenizer is None:
            return (found - 1).astype(np.uint8).tobytes().decode("utf-8", errors="replace")
        return self.tokenizer.decode(found.tolist(), skip_special_tokens=False)

    def __repr__(self) -> str:
        return f"Tokens({self.kind}, vocab_size={self.vocab_size}, fingerprint={self.fingerprint!r})"


def options_of(kind: str | None) -> dict[str, Any]:
    """Arguments of `Tokens` for tokens of a kind, beside the tokenizer."""
    return {"alphabet": kind} if kind in ALPHABETS else {"words": kind == "words"}


def as_text(text: bytes | str) -> str:
    """UTF-8 as text, with U+FFFD for what is none."""
    return as_bytes(text).decode("utf-8", errors="replace")


def as_bytes(text: bytes | str) -> bytes:
    """Text as UTF-8, with "?" for a lone surrogate, which is no character."""
    return text if isinstance(text, bytes) else text.encode("utf-8", errors="replace")


def _tokenizer(content: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(content)
