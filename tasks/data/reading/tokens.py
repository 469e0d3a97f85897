"""Text to token ids and back: bytes, words, or a tokenizer that is trained on the data or loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lambda_seq.models import Model
from lambda_seq.models.inputs import WORD_IDS
from lambda_seq.models.words import takes_words, word_ids
from lambda_seq.tasks.data.reading.cache import cached, in_batches
from lambda_seq.tasks.data.reading.notes import note

PAD = "<pad>"
PAD_NAMES = (PAD, "[PAD]", "<|pad|>", "<|padding|>", "<PAD>", "[pad]")  # by which loaded tokenizers call it
ENCODED = 2**20  # characters that a tokenizer is given together
PIECE = 2**18  # characters of the pieces in which a tokenizer learns from a text
SMALLEST = 258  # padding, the 256 bytes, and one more to learn
CUT = re.compile(r"\w(?= \w)")
KINDS = ("bytes", "words", "tokenizer")
RARE = "ꙮ𓀀⻦"  # which no tokenizer has learned
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

    An empty document has no tokens.

    Args:
        tokenizer: of the tokenizers library; copied. None for bytes, or words.
        words: whether tokens are words.

    Raises:
        ValueError: a tokenizer, and words.
    """

    def __init__(self, tokenizer: Tokenizer | None = None, *, words: bool = False) -> None:
        self.tokenizer: Tokenizer | None = None
        self.kind = "words" if words else "bytes" if tokenizer is None else "tokenizer"
        self.pad, self.vocab_size = 0, WORD_IDS if words else 257
        if words and tokenizer is not None:
            raise ValueError("words=True with a tokenizer: tokens are the one or the other; leave one out")
        if tokenizer is not None:
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
    def of(cls, model: Model) -> Tokens:
        """Those that a saved model takes: of its tokenizer, or what its preprocessing says."""
        return cls(model.tokenizer, words=takes_words(model.preprocessing))

    @classmethod
    def named(cls, name: str, texts: Callable[[], Iterable[bytes | str]], vocab_size: int) -> Tokens:
        """What data modules call "bytes", "words", "train" (on these texts), or by a name for `load`."""
        if name in ("bytes", "words"):
            return cls(words=name == "words")
        return cls.train(texts(), vocab_size) if name == "train" else cls.load(name)

    @classmethod
    def load(cls, name: str) -> Tokens:
        """The tokenizer of a tokenizer.json, of a folder with such a file, or of a name on the Hugging Face hub.

        Characters that it drops, having neither a token for them nor one for what it does not know, are said.

        Raises:
            ValueError: the file is no tokenizer, or one that fails where it does not know a word.
            FileNotFoundError: nothing of this name here, and nothing found on the hub, or no network.
        """
        file = Path(name).expanduser()
        file = file / "tokenizer.json" if file.is_dir() else file
        if file.is_file():
            try:
                tokens = cls(Tokenizer.from_file(str(file)))
            except Exception as error:  # the library raises nothing more special
                raise ValueError(
                    f"tokenizer={name!r}: {file} is not readable as a tokenizer ({error}); expected a tokenizer.json "
                    "of the tokenizers library"
                ) from error
            return tokens._checked(name)
        try:
            tokens = cls(Tokenizer.from_pretrained(name))
        except Exception as error:
            raise FileNotFoundError(
                f"tokenizer={name!r}: there is no such file (looked for {file.absolute()}), and as a name on the "
                f"Hugging Face hub it cannot be loaded ({error}); give an existing tokenizer.json, a hub name while "
                'connected to the network, "train" for one of your own data, "words", or "bytes"'
            ) from error
        return tokens._checked(name)

    def _checked(self, name: str) -> Tokens:
        """Itself, if it can read what it does not know."""
        remedy = 'give it an unknown token or all bytes, or train one: "train"'
        try:
            lost = not len(self.encode(RARE))
        except Exception as error:  # the library raises nothing more special
            raise ValueError(
                f"tokenizer={name!r} cannot read words that it does not know ({error}); {remedy}"
            ) from error
        if lost:
            note(f"tokenizer={name!r} has no token for characters that it does not know: they are left out; {remedy}")
        return self

    @classmethod
    def train(cls, texts: Iterable[bytes | str], vocab_size: int = 8192, *, folder: str | Path | None = None) -> Tokens:
        """A byte-level BPE tokenizer trained on these texts: the same texts and size give the same tokenizer.

        It knows all bytes, so that every text can be encoded and comes back unchanged. It is trained once and kept.

        Args:
            texts: gone through twice, one at a time; a list or the like, no iterator.
            vocab_size: greatest number of ids, padding (id 0) and 256 bytes included; few texts give fewer.
            folder: where trained tokenizers are kept; default: lambda_seq/ in the cache folder of `datasets`.

        Raises:
            ValueError: vocab_size below 258, or texts without a single byte.
            TypeError: texts can be gone through only once.
        """
        if iter(texts) is texts:
            raise TypeError(f"texts={texts!r} can be gone through only once: give a list, or an object with __iter__")
        if vocab_size < SMALLEST:
            raise ValueError(
                f"vocab_size={vocab_size}: expected at least {SMALLEST}, as padding and 256 bytes come first"
            )
        digest, size = hashlib.sha256(), 0
        for text in texts:
            raw = _bytes(text)
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
            size += len(raw)
        if not size:
            raise ValueError("tokenizer='train': the training texts are all empty; give texts, or read bytes")

        def make(path: Path) -> None:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=vocab_size,
                special_tokens=[PAD],
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            )
            tokenizer.train_from_iterator(chain.from_iterable(map(_pieces, texts)), trainer)
            tokenizer.save(str(path))

        return cls.load(str(cached(f"bpe-{vocab_size}-{digest.hexdigest()[:32]}.json", make, folder)))

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Tokens:
        """What `facts` describes.

        Raises:
            ValueError: facts of another kind, or that the tokenizer in them does not have.
        """
        kind = facts.get("kind")
        if kind not in KINDS:
            raise ValueError(f"facts: kind={kind!r} of tokens; expected one of {', '.join(map(repr, KINDS))}")
        try:
            tokens = cls(Tokenizer.from_str(facts["json"])) if kind == "tokenizer" else cls(words=kind == "words")
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

        "kind": "bytes", "words" or "tokenizer"; "vocab_size"; "pad": id of padding; "fingerprint"; and of a tokenizer
        "json", the whole of it as the text of a tokenizer.json.
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
        vocabulary = [] if self.tokenizer is None else sorted(self.tokenizer.get_vocab(with_added_tokens=True).items())
        content = json.dumps([vocabulary, self.pad, self.encode(SAMPLE).tolist()])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, text: bytes | str) -> Int[np.ndarray, " N"]:
        """Ids of a text, int64; none of an empty one."""
        if self.kind == "words":
            return np.array(word_ids(_text(text)), dtype=np.int64)
        if self.tokenizer is None:
            return np.frombuffer(_bytes(text), np.uint8).astype(np.int64) + 1
        return np.array(self.tokenizer.encode(_text(text), add_special_tokens=False).ids, dtype=np.int64)

    def encode_all(self, texts: Iterable[bytes | str]) -> Iterator[Int[np.ndarray, " N"]]:
        """Ids of each text, as `encode` gives them, in turn; a tokenizer uses all cores.

        A tokenizer needs some 140 bytes of memory for each character that it is given together: it is given texts of
        `ENCODED` characters, or one that is longer.
        """
        if self.tokenizer is None:
            yield from map(self.encode, texts)
            return
        for batch in in_batches(map(_text, texts), len, ENCODED):
            for encoding in self.tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int64)

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
        if self.tokenizer is None:
            return (found - 1).astype(np.uint8).tobytes().decode("utf-8", errors="replace")
        return self.tokenizer.decode(found.tolist(), skip_special_tokens=False)

    def __repr__(self) -> str:
        return f"Tokens({self.kind}, vocab_size={self.vocab_size}, fingerprint={self.fingerprint!r})"


def _pieces(text: bytes | str) -> Iterator[str]:
    """A text in pieces, cut before white space behind a word: a byte-level tokenizer learns the same of them.

    The library takes 256 texts at once into memory, however long they are.
    """
    rest, begin = _text(text), 0
    while len(rest) - begin > PIECE and (gap := CUT.search(rest, begin + PIECE)):
        yield rest[begin : gap.end()]
        begin = gap.end()
    yield rest[begin:]


def _text(text: bytes | str) -> str:
    """UTF-8 as text, with U+FFFD for what is none."""
    return _bytes(text).decode("utf-8", errors="replace")


def _bytes(text: bytes | str) -> bytes:
    """Text as UTF-8, with "?" for a lone surrogate, which is no character."""
    return text if isinstance(text, bytes) else text.encode("utf-8", errors="replace")
