"""Text to token ids and back: bytes, or a tokenizer that is trained on the data or loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.data.cache import cached

PAD = "<pad>"
PAD_NAMES = (PAD, "[PAD]", "<|pad|>", "<|padding|>", "<PAD>", "[pad]")  # by which loaded tokenizers call it
SMALLEST = 258  # padding, the 256 bytes, and one more to learn
SAMPLE = "It's 1984, and THE naïve Æther\tcosts 3.50 €:\n\n    привет, 世界! 👋🏽 <pad> [PAD] \ufffd"


class Tokens:
    """Text to token ids and back.

    Without a tokenizer a token is a byte: id 0 is padding, id 1 + b the byte b, 257 ids in all. Any bytes can be
    encoded, and come back from `decode` as the same text if they are UTF-8.

    With a tokenizer ids are its own. It reads text, so bytes that are no UTF-8 become U+FFFD "�" before. Its template
    ([CLS] …), truncation and padding are not applied, and a special token's name within a text is text: no document can
    smuggle in padding. A tokenizer without a padding token gets one, as its last id.

    An empty document has no tokens.

    Args:
        tokenizer: of the tokenizers library; copied. None for bytes.
    """

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self.tokenizer: Tokenizer | None = None
        self.pad, self.vocab_size = 0, 257
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
    def load(cls, name: str) -> Tokens:
        """The tokenizer of a tokenizer.json, of a folder with such a file, or of a name on the Hugging Face hub.

        Raises:
            ValueError: the file is no tokenizer.
            FileNotFoundError: nothing of this name here, and nothing found on the hub, or no network.
        """
        file = Path(name).expanduser()
        file = file / "tokenizer.json" if file.is_dir() else file
        if file.is_file():
            try:
                return cls(Tokenizer.from_file(str(file)))
            except Exception as error:  # the library raises nothing more special
                raise ValueError(
                    f"tokenizer={name!r}: {file} is not readable as a tokenizer ({error}); expected a tokenizer.json "
                    "of the tokenizers library"
                ) from error
        try:
            return cls(Tokenizer.from_pretrained(name))
        except Exception as error:
            raise FileNotFoundError(
                f"tokenizer={name!r}: there is no such file (looked for {file.absolute()}), and as a name on the "
                f"Hugging Face hub it cannot be loaded ({error}); give an existing tokenizer.json, a hub name while "
                'connected to the network, "train" for one of your own data, or "bytes"'
            ) from error

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
            tokenizer.train_from_iterator(map(_text, texts), trainer)
            tokenizer.save(str(path))

        return cls.load(str(cached(f"bpe-{vocab_size}-{digest.hexdigest()[:32]}.json", make, folder)))

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Tokens:
        """What `facts` describes.

        Raises:
            ValueError: facts of another kind, or that the tokenizer in them does not have.
        """
        if facts.get("kind") not in ("bytes", "tokenizer"):
            raise ValueError(f"facts: kind={facts.get('kind')!r} of tokens; expected 'bytes' or 'tokenizer'")
        try:
            tokens = cls() if facts["kind"] == "bytes" else cls(Tokenizer.from_str(facts["json"]))
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f'facts: their "json" is not readable as a tokenizer ({error})') from error
        if tokens.fingerprint != facts["fingerprint"]:
            raise ValueError(
                f"facts: the tokenizer has the fingerprint {tokens.fingerprint}, not {facts['fingerprint']} as they "
                "say: the file was changed, or this version of the tokenizers library cuts text otherwise"
            )
        return tokens

    @property
    def kind(self) -> str:
        """Either "bytes" or "tokenizer"."""
        return "bytes" if self.tokenizer is None else "tokenizer"

    @property
    def facts(self) -> dict[str, Any]:
        """Primitives that rebuild it.

        "kind": "bytes" or "tokenizer"; "vocab_size"; "pad": id of padding; "fingerprint"; and of a tokenizer "json",
        the whole of it as the text of a tokenizer.json.
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
        if self.tokenizer is None:
            return "bytes"
        vocabulary = sorted(self.tokenizer.get_vocab(with_added_tokens=True).items())
        content = json.dumps([vocabulary, self.pad, self.encode(SAMPLE).tolist()])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, text: bytes | str) -> Int[np.ndarray, " N"]:
        """Ids of a text, int64; none of an empty one."""
        if self.tokenizer is None:
            return np.frombuffer(_bytes(text), np.uint8).astype(np.int64) + 1
        return np.array(self.tokenizer.encode(_text(text), add_special_tokens=False).ids, dtype=np.int64)

    def encode_all(self, texts: Iterable[bytes | str]) -> Iterator[Int[np.ndarray, " N"]]:
        """Ids of each text, as `encode` gives them; a tokenizer uses all cores."""
        if self.tokenizer is None:
            return map(self.encode, texts)
        encodings = self.tokenizer.encode_batch_fast(list(map(_text, texts)), add_special_tokens=False)
        return (np.array(encoding.ids, dtype=np.int64) for encoding in encodings)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids, without padding; bytes that are no UTF-8 appear as U+FFFD "�".

        Raises:
            ValueError: an id outside 0 ≤ id < vocab_size.
        """
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


def _text(text: bytes | str) -> str:
    """UTF-8 as text, with U+FFFD for what is none."""
    return _bytes(text).decode("utf-8", errors="replace")


def _bytes(text: bytes | str) -> bytes:
    """Text as UTF-8, with "?" for a lone surrogate, which is no character."""
    return text if isinstance(text, bytes) else text.encode("utf-8", errors="replace")
