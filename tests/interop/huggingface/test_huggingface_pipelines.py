"""Pipelines of transformers give the answers of our own predictor: texts, tokens, clips, pictures."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: .[huggingface]")
pytest.importorskip("soundfile")
pytest.importorskip("PIL")

import transformers
from huggingface_models import LABELS, TEXTS, build, clip, picture
from PIL import Image

from lambda_seq.inference.predictor import Predictor
from lambda_seq.interop import huggingface
from lambda_seq.models.words import word_ids

ALL = {"top_k": None}


def folder_of(network, path):
    """A folder of transformers with the model and what reads its inputs."""
    huggingface.from_ours(network).save_pretrained(path)
    huggingface.processor_of(network).save_pretrained(path)
    return str(path)


def agree(found, predicted):
    """Each class with the probability that our predictor gives."""
    scores = {one["label"]: one["score"] for one in found}
    assert scores == pytest.approx(predicted.probabilities, abs=1e-5)


@pytest.mark.parametrize("kind", ["texts", "words"])
def test_texts(kind, tmp_path):
    network = build(kind)
    answer = transformers.pipeline("text-classification", folder_of(network, tmp_path), device="cpu")
    predicted = Predictor(network)(TEXTS)
    for found in (answer(TEXTS, truncation=True, **ALL), answer(TEXTS, truncation=True, batch_size=2, **ALL)):
        for one, expected in zip(found, predicted, strict=True):
            agree(one, expected)
    assert answer(TEXTS[0])[0]["label"] == predicted[0].label


def test_bytes_are_those_of_our_own_tokens(tmp_path):
    network = build("texts")
    tokenizer = huggingface.processor_of(network)
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "naïve <pad> 世界\n👋🏽 \x00"
    expected = [1 + byte for byte in text.encode()]
    for one in (tokenizer, again):
        assert one(text)["input_ids"] == expected
        assert one.decode(expected) == text
        assert (one.pad_token_id, one.vocab_size, one.padding_side) == (0, 257, "right")
        assert one.model_max_length == 64
        assert one(text, truncation=True, max_length=5)["input_ids"] == expected[:5]
    assert one(["a", "abc"], padding=True)["attention_mask"] == [[1, 0, 0], [1, 1, 1]]


def test_texts_that_are_read_from_their_end(tmp_path):
    network = build("words")
    network.preprocessing["tokens"]["part"] = "end"
    network.preprocessing["tokens"]["max_length"] = 3
    answer = transformers.pipeline("text-classification", folder_of(network, tmp_path), device="cpu")
    agree(answer(TEXTS[3], truncation=True, **ALL), Predictor(network)(TEXTS[3]))


def test_tokens(tmp_path):
    network = build("tags")
    answer = transformers.pipeline("token-classification", folder_of(network, tmp_path), device="cpu", ignore_labels=[])
    expected = Predictor(network)(TEXTS[0])
    found = answer(TEXTS[0])
    assert [one["entity"] for one in found] == expected.labels
    assert [one["score"] for one in found] == pytest.approx(expected.answer.max(-1).tolist(), abs=1e-5)
    assert [TEXTS[0][one["start"] : one["end"]] for one in found] == TEXTS[0].split()
    assert {group["entity_group"] for group in answer(TEXTS[0], aggregation_strategy="simple")} <= set(LABELS)
    assert len(answer(TEXTS, batch_size=4)) == 4


@pytest.mark.parametrize("kind", ["clips", "frames"])
def test_clips(kind, tmp_path):
    network = build(kind)
    answer = transformers.pipeline("audio-classification", folder_of(network, tmp_path), device="cpu", **ALL)
    clips = [clip(0.4), clip(0.3, seed=1), clip(0.9, seed=2)]  # the last is longer than what is heard of it
    predicted = Predictor(network)([(one, 8000) for one in clips])
    for one, expected in zip(clips, predicted, strict=True):
        agree(answer(one), expected)
    for found, expected in zip(answer(clips, batch_size=3), predicted, strict=True):
        agree(found, expected)
    given = {"array": clips[0], "sampling_rate": 8000}
    agree(answer(given), predicted[0])


def test_clips_of_another_rate_are_resampled(tmp_path):
    network = build("clips")
    extract = transformers.AutoFeatureExtractor.from_pretrained(folder_of(network, tmp_path))
    assert isinstance(extract, huggingface.LambdaSeqFeatureExtractor)
    given = extract(clip(0.4, 16000), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        found = huggingface.from_ours(network)(**given).logits.softmax(-1)[0]
    np.testing.assert_allclose(found, Predictor(network)((clip(0.4, 16000), 16000)).answer, atol=1e-5)
    arrays = extract([clip(0.4), clip(0.3)])
    assert isinstance(arrays["input_values"], np.ndarray)
    assert arrays["attention_mask"].sum(1).tolist() == [3200, 2400]


def test_what_clips_cannot_be_is_said():
    with pytest.raises(ValueError, match="sampling_rate=16000: the network was trained at 8000"):
        huggingface.LambdaSeqFeatureExtractor(audio={"sampling_rate": 8000}, sampling_rate=16000)
    record = {"sampling_rate": 8000, "max_length": 1000, "evaluate": "windows"}
    with pytest.raises(ValueError, match=r"raw_speech\[0\]: the network hears 1000 samples at once"):
        huggingface.LambdaSeqFeatureExtractor(audio=record)(clip(0.4))


@pytest.mark.parametrize("kind", ["pictures", "pixels"])
def test_pictures(kind, tmp_path):
    network = build(kind)
    folder = folder_of(network, tmp_path)
    answer = transformers.pipeline("image-classification", folder, device="cpu", **ALL)
    arrays = [picture(0), picture(1, (30, 8))]
    pictures = [Image.fromarray(one) for one in arrays]
    predicted = Predictor(network)(arrays)
    for found in (answer(pictures, top_k=3), answer(pictures, top_k=3, batch_size=2)):
        for one, expected in zip(found, predicted, strict=True):
            agree(one, expected)
    pictures[0].save(tmp_path / "one.png")
    agree(answer(str(tmp_path / "one.png"), top_k=3), predicted[0])
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert isinstance(processor, huggingface.LambdaSeqImageProcessor)
    assert processor(arrays[0])["pixel_values"].shape == (1, 3, 12, 10)
    with pytest.raises(ValueError, match="do_resize=False: pictures are read as in training"):
        processor(arrays[0], do_resize=False)


def test_words(tmp_path):
    network = build("texts", stem="ngrams", vocab_size=None, buckets=64)
    network.preprocessing = {"version": 1, "tokens": {"kind": "words", "part": "start", "max_length": 6}}
    answer = transformers.pipeline("text-classification", folder_of(network, tmp_path), device="cpu")
    assert isinstance(answer.tokenizer, huggingface.LambdaSeqWordTokenizer)
    texts = [*TEXTS, "NAÏVE <pad> naı\u0308ve"]
    predicted = Predictor(network)(texts)
    for found in (answer(texts, truncation=True, **ALL), answer(texts, truncation=True, batch_size=3, **ALL)):
        for one, expected in zip(found, predicted, strict=True):
            agree(one, expected)
    assert answer.tokenizer(texts[-1])["input_ids"] == word_ids(texts[-1])
    assert answer.tokenizer.decode([0, 5]) == "<pad> \ufffd"


def test_windows_of_texts_are_a_line(caplog):
    network = build("texts")
    network.preprocessing["tokens"] |= {"part": "windows", "stride": 32}
    huggingface.processor_of(network)
    assert "part='windows'" in caplog.text
