"""How inputs are read, for the pipelines of transformers: by our own records and readers, or as a tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.image_processing_utils import BaseImageProcessor

from lambda_seq.inference.loading import reader_of
from lambda_seq.inference.readers import ClipReader, PictureReader, TextReader
from lambda_seq.inference.records import Audio, Pixels
from lambda_seq.interop.huggingface.tokenizing import tokenizer_of
from lambda_seq.models.model import Model, from_pretrained

Processor = Any  # a tokenizer, a feature extractor or an image processor


def processor_of(given: Model | str | os.PathLike[str], **options: Any) -> Processor:
    """What reads inputs of a saved model of ours, as transformers wants it; `save_pretrained` puts it into a folder.

    Args:
        given: a model, or what `lambda_seq.from_pretrained` takes: a folder, or "owner/name" of the hub.
        options: of `lambda_seq.from_pretrained`.

    Returns:
        A `PreTrainedTokenizerFast` of texts as bytes or by a tokenizer, a `LambdaSeqWordTokenizer` of words, a
        `LambdaSeqFeatureExtractor` of clips, or a `LambdaSeqImageProcessor` of pictures.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `lambda_seq.from_pretrained`, or the model does not say how
            its inputs are read.
        ModuleNotFoundError: a package is missing that reads such inputs.
    """
    model = given if isinstance(given, Model) else from_pretrained(given, **options)
    reader = reader_of(model, type(model).__name__ if isinstance(given, Model) else str(given))
    if isinstance(reader, TextReader):
        return tokenizer_of(model, reader)
    if isinstance(reader, ClipReader):
        return LambdaSeqFeatureExtractor(audio=reader.record.to_dict())
    assert isinstance(reader, PictureReader)
    record = {name: value for name, value in (model.preprocessing or {}).items() if name in Pixels.__dataclass_fields__}
    return LambdaSeqImageProcessor(pixels={**record, "size": list(reader.decode.size)})


@lru_cache(maxsize=32)
def _clip_reader(audio: str) -> ClipReader:
    return ClipReader(Audio.from_dict(json.loads(audio)))


@lru_cache(maxsize=32)
def _picture_reader(pixels: str) -> PictureReader:
    return PictureReader(Pixels.from_dict(json.loads(pixels)), as_sequence=False)


class LambdaSeqFeatureExtractor(SequenceFeatureExtractor):
    """Clips as the network hears them: resampled, cut, standardised, as log-mel frames where it takes these.

    Args:
        audio: the record of a saved model's `preprocessing`, see `lambda_seq.inference.records.Audio`.
        **others: of `transformers.SequenceFeatureExtractor`.

    Raises:
        ValueError: another sampling rate than the record's, or an entry that it does not have.
        ModuleNotFoundError: soundfile or soxr is missing.
    """

    def __init__(self, audio: Mapping[str, Any] | None = None, **others: Any) -> None:
        record = Audio.from_dict(dict(audio or {"sampling_rate": 16000}))
        self.audio = record.to_dict()
        rate = others.pop("sampling_rate", record.sampling_rate)
        if rate != record.sampling_rate:
            raise ValueError(
                f"sampling_rate={rate}: the network was trained at {record.sampling_rate}; leave it out, and say the "
                "rate of clips where they are given"
            )
        framed = record.representation == "log_mel"
        others = {"padding_value": 0.0, **others, "feature_size": record.n_mels or 64 if framed else 1}
        super().__init__(sampling_rate=rate, **others)
        self.model_input_names = ["input_features" if framed else "input_values", "attention_mask"]

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **others: Any,
    ) -> BatchFeature:
        """Samples or frames side by side, and their mask.

        Args:
            raw_speech: samples from −1 to 1, (N,), or a list of such clips.
            sampling_rate: of them, resampled where it is another; None for the network's.
            return_tensors: "pt" or "np"; None for "np".
            others: of transformers' extractors, such as padding: clips are always padded to the longest.

        Raises:
            ValueError: no clip, or one that is read in windows, whose answers pipelines do not average.
        """
        given = raw_speech if isinstance(raw_speech, Sequence) and np.ndim(raw_speech[0]) else [raw_speech]
        reader, rate = _clip_reader(json.dumps(self.audio)), sampling_rate or self.sampling_rate
        rows = []
        for index, clip in enumerate(given):
            windows = reader.windows((np.asarray(clip, np.float32), rate))
            if len(windows) > 1:
                raise ValueError(
                    f"raw_speech[{index}]: the network hears {len(windows[0])} samples at once and averages its "
                    "answers to longer clips, which pipelines do not: ask load_predictor, or give stretches of that "
                    "length"
                )
            rows += windows
        x, mask = reader.batch(rows)
        mask = torch.ones(x.shape, dtype=torch.bool) if mask is None else mask
        frontend: Any = reader.frontend
        x, mask = frontend(x, mask)
        data = {self.model_input_names[0]: x, "attention_mask": mask.long()}
        return BatchFeature(data if return_tensors == "pt" else {name: one.numpy() for name, one in data.items()})


class LambdaSeqImageProcessor(BaseImageProcessor):
    """Pictures as the network sees them: upright, on the background, of its size and channels, standardised.

    Args:
        pixels: the record of a saved model's `preprocessing`, see `lambda_seq.inference.records.Pixels`.
        **others: of `transformers.BaseImageProcessor`.

    Raises:
        ModuleNotFoundError: Pillow is missing.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - as transformers has it

    def __init__(self, pixels: Mapping[str, Any] | None = None, **others: Any) -> None:
        super().__init__(**others)
        self.pixels = dict(pixels or {"mean": [127.5] * 3, "std": [127.5] * 3, "size": [224, 224]})

    def preprocess(self, images: Any, return_tensors: str | None = None, **others: Any) -> BatchFeature:
        """Pictures (B, C, H, W), standardised.

        Args:
            images: a picture of PIL, an array (H, W) or (H, W, C) or a tensor (C, H, W) of bytes, a path, or a list.
            return_tensors: "pt" or "np"; None for "np".
            others: none: size and standardisation are those of the training.

        Raises:
            TypeError, ValueError: no picture, or an option that the network's training has settled.
        """
        changed = sorted(name for name, value in others.items() if value is not None)
        if changed:
            raise ValueError(f"{changed[0]}={others[changed[0]]!r}: pictures are read as in training; leave it out")
        reader = _picture_reader(json.dumps(self.pixels))
        given = images if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4 else [images]
        x, _ = reader.batch([window for one in given for window in reader.windows(one)])
        frontend: Any = reader.frontend
        pixels: Tensor = frontend(x, None)[0]
        return BatchFeature({"pixel_values": pixels if return_tensors == "pt" else pixels.numpy()})
