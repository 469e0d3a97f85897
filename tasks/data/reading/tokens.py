"""Tokens that are trained on the data, or loaded by a name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lambda_seq.inference.tokens import KINDS, PAD, as_bytes, as_text, options_of
from lambda_seq.inference.tokens import Tokens as PlainTokens
from lambda_seq.tasks.data.reading.cache import cached, in_batches
from lambda_seq.tasks.data.reading.notes import note

ENCODED = 2**20  # characters that a tokenizer is given together
PIECE = 2**18  # characters of the pieces in which a tokenizer learns from a text
SMALLEST = 258  # padding, the 256 bytes, and one more to learn
CUT = re.compile(r"\w(?= \w)")
RARE = "ꙮ𓀀⻦"  # which no tokenizer has learned


class Tokens(PlainTokens):
    """Text to token ids and back, also of a tokenizer that is trained or loaded here; see `inference.tokens.Tokens`."""

    @classmethod
    def named(cls, name: str, texts: Callable[[], Iterable[bytes | str]], vocab_size: int) -> Tokens:
        """What data modules call "bytes", "words", "dna", "protein", "train" (on these texts), or a name for `load`."""
        if name in KINDS and name != "tokenizer":
            return cls(**options_of(name))
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
            raw = as_bytes(text)
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

    def encode_all(self, texts: Iterable[bytes | str]) -> Iterator[Int[np.ndarray, " N"]]:
        """Ids of each text, as `encode` gives them, in turn; a tokenizer uses all cores.

        A tokenizer needs some 140 bytes of memory for each character that it is given together: it is given texts of
        `ENCODED` characters, or one that is longer.
        """
        if self.tokenizer is None:
            yield from map(self.encode, texts)
            return
        for batch in in_batches(map(as_text, texts), len, ENCODED):
            for encoding in self.tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int64)


def _pieces(text: bytes | str) -> Iterator[str]:
    """A text in pieces, cut before white space behind a word: a byte-level tokenizer learns the same of them.

    The library takes 256 texts at once into memory, however long they are.
    """
    rest, begin = as_text(text), 0
    while len(rest) - begin > PIECE and (gap := CUT.search(rest, begin + PIECE)):
        yield rest[begin : gap.end()]
        begin = gap.end()
    yield rest[begin:]
