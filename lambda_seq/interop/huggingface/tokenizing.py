"""Tokenizers of transformers that give the ids of our own: bytes, words, and tokenizers of the library of that name."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lambda_seq.inference.readers import TextReader
from lambda_seq.inference.tokens import PAD
from lambda_seq.models.inputs import WORD_IDS
from lambda_seq.models.model import Model
from lambda_seq.models.sequence.generation import GenerativeModel
from lambda_seq.models.words import word_ids, words_of

log = logging.getLogger(__name__)


def tokenizer_of(model: Model, reader: TextReader) -> PreTrainedTokenizerBase:
    """What gives the ids of a reader's tokens.

    Language models begin with the padding token, which divides documents, and are padded on their left.
    """
    tokens, part, generates = reader.tokens, reader.reading.part, isinstance(model, GenerativeModel)
    limits = [most for most in (reader.most, getattr(model, "max_length", None)) if most is not None]
    if not generates and part in ("middle", "windows"):
        log.warning(
            "the model was evaluated on part=%r of longer texts, which tokenizers of transformers do not give: cut "
            "off, a text is read from its beginning; load_predictor reads it as the training did",
            part,
        )
    options: dict[str, Any] = {
        **({"model_max_length": min(limits)} if limits else {}),
        "padding_side": "left" if generates else "right",
        "truncation_side": "left" if generates or part == "end" else "right",
        "split_special_tokens": True,  # a special token's name within a text is text
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if tokens.kind == "words":
        return LambdaSeqWordTokenizer(**options)
    from tokenizers.processors import TemplateProcessing

    backend: Any = byte_tokenizer() if tokens.tokenizer is None else tokens.tokenizer
    pad = backend.id_to_token(tokens.pad)
    template = TemplateProcessing(single=[pad, "$A"], special_tokens=[(pad, tokens.pad)]) if generates else None
    backend.post_processor = template
    ends = {"bos_token": pad, "eos_token": pad} if generates else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, **ends, **options)


def byte_tokenizer() -> Any:
    """Bytes as a `tokenizers.Tokenizer`: id 0 is padding, id 1 + b the byte b."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = {letter: 1 + byte for byte, letter in bytes_to_unicode().items()}
    tokenizer = Tokenizer(BPE(vocab={PAD: 0, **letters}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD])
    return tokenizer


class LambdaSeqWordTokenizer(PreTrainedTokenizer):
    """Words by their hashes, of any vocabulary, id 0 for padding: see `lambda_seq.models.words`.

    No text comes back from ids.

    Args:
        **options: of `transformers.PreTrainedTokenizer`.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {}
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"pad_token": PAD, "split_special_tokens": True, **options})

    @property
    def vocab_size(self) -> int:
        """Number of ids that words may have."""
        return WORD_IDS

    def get_vocab(self) -> dict[str, int]:
        """The padding token alone: words are not listed."""
        return {PAD: 0}

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Nothing to write."""
        return ()

    # The three that follow are private to transformers, whose way to say them it is
    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return words_of(text)

    def _convert_token_to_id(self, token: str) -> int:
        return word_ids(token)[0]

    def _convert_id_to_token(self, index: int) -> str:
        return PAD if index == 0 else "\ufffd"
