"""The reader of a saved model, by the record that it carries as `preprocessing`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from lambda_seq.inference.readers import ClipReader, PictureReader, Reader, SeriesReader, TextReader
from lambda_seq.inference.records import VERSION, Audio, Part, Pixels, Series, Vocabulary
from lambda_seq.inference.tagging import TagReader
from lambda_seq.inference.tokens import Tokens
from lambda_seq.models.model import Model
from lambda_seq.models.sequence.generation import GenerativeModel

log = logging.getLogger(__name__)
Record = TypeVar("Record", bound=Part)
AGAIN = "train again, or write `preprocessing` in its config.json, so that it says so"


def reader_of(model: Model, name: str) -> Reader:
    """What reads the inputs of a model.

    Of a model that was saved before models said all of it, what is missing is taken as the defaults of the data modules
    have it, and a line says so.

    Args:
        model: as `from_pretrained` gives it.
        name: of the model, for messages.

    Raises:
        ValueError: the model does not say what its inputs are made of, or how large, or by a later version's rules.
        ModuleNotFoundError: a package is missing that reads such inputs.
    """
    given = model.preprocessing or {}
    version = given.get("version", 0)
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(
            f"{name}: how its inputs are read is said in version {version!r} of the record, and this lambda_seq knows "
            f"{VERSION}: update it"
        )
    try:
        if "audio" in given:
            return ClipReader(_complete(Audio.from_dict(given["audio"]), name, _of_clips(given)))
        if "series" in given:
            return SeriesReader(Series.from_dict(given["series"]))
        if "mean" in given:
            return _picture_reader(given, name)
        if model.input_kind == "tokens" and ("tokens" in given or isinstance(model, GenerativeModel)):
            return _text_reader(model, given, name)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{name}: its `preprocessing` is no record of how inputs are read ({error})") from error
    held = f"it says only {', '.join(given)}" if given else "it says nothing"
    raise ValueError(
        f"{name}: `preprocessing` in its config.json does not say how {model.input_kind} are made of inputs, {held}. "
        "The models of `lambda-seq fit` on texts, pictures, clips and series do; prepare inputs as the training did, "
        "and use from_pretrained"
    )


def _text_reader(model: Model, given: Mapping[str, Any], name: str) -> TextReader | TagReader:
    known = {one.name for one in fields(Vocabulary)}
    record = Vocabulary(**{key: value for key, value in given.get("tokens", {}).items() if key in known})
    if not isinstance(model, GenerativeModel):  # which goes on from all of a prompt
        record = _complete(record, name, {"part": "start", "max_length": given.get("max_length")})
    tokens = Tokens.of(model)
    if model.vocab_size is not None and tokens.vocab_size > model.vocab_size:
        raise ValueError(
            f"{name}: the model has vocab_size={model.vocab_size} but its tokens are {tokens.vocab_size}, of "
            f"{tokens.kind}: save it with its tokenizer"
        )
    return TextReader(record, tokens) if record.units is None else TagReader(record, tokens)


def _picture_reader(given: Mapping[str, Any], name: str) -> PictureReader:
    known = {one.name for one in fields(Pixels)}
    record = Pixels.from_dict({key: value for key, value in given.items() if key in known})
    record = _complete(record, name, {"size": given.get("image_size")})
    if record.size is None:
        raise ValueError(f"{name}: `preprocessing` does not say the size that pictures are brought to: {AGAIN}")
    return PictureReader(record, as_sequence=given.get("input") == "features")


def _of_clips(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"clip_length": given["audio"].get("max_length"), "evaluate": "whole"}


def _complete(record: Record, name: str, defaults: dict[str, Any]) -> Record:
    """A record with defaults for what it does not say; a line names these."""
    taken = {field: defaults[field] for field in record.unknown() if defaults.get(field) is not None}
    if taken:
        said = ", ".join(f"{field}={value!r}" for field, value in taken.items())
        log.warning(
            "%s was saved before models said all of how inputs are read: %s is missing, and taken as %s. If the "
            "training had other options, %s",
            name,
            ", ".join(taken),
            said,
            AGAIN,
        )
    return replace(record, **taken)
