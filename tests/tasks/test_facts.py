"""Facts of data: they survive a checkpoint as primitives, those of earlier versions too, and say what must agree."""

import dataclasses
import json

import pytest
import torch

from lambda_seq.inference.frontends import AudioFrontend
from lambda_seq.tasks.facts import Audio, Facts, Pixels, Series, Target, Vocabulary

PICTURES = Facts(
    kind="image",
    options={"num_classes": 2, "in_channels": 3, "image_size": [8, 8]},
    labels=["a", "b"],
    pixels=Pixels(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], background="white", full_scale=4095),
)
CLIPS = Facts(
    kind="waveform",
    options={"num_classes": 2, "in_channels": 1, "max_length": 400},
    labels=["a", "b"],
    audio=Audio(sampling_rate=4000, max_length=400),
)
TEXTS = Facts(
    kind="tokens",
    options={"num_classes": 2, "vocab_size": 257, "max_length": 64},
    labels=["a", "b"],
    tokens=Vocabulary(kind="bytes", vocab_size=257, pad=0, fingerprint="bytes"),
    baselines={"val": {"chance": 0.5}},
)
SERIES = Facts(kind="features", labels=["width"], target=Target(kind="numbers", mean=[3.0], std=[0.5]))
STEPS = Facts(
    kind="features",
    options={"num_classes": 2, "in_channels": 4, "max_length": 9},
    labels=["a", "b"],
    series=Series(channels=["x", "y"], mean=[1.0, 2.0], std=[3.0, 4.0], indicator=True, max_length=9, part="start"),
)
ALL = [PICTURES, CLIPS, TEXTS, SERIES, STEPS]


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.kind)
def test_they_survive_a_checkpoint(facts, tmp_path):
    torch.save({"facts": facts.to_dict()}, tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)["facts"]
    assert stored == json.loads(json.dumps(facts.to_dict()))
    assert Facts.of(stored) == facts
    assert Facts.of(facts) is facts


def test_the_stored_form_is_the_one_of_earlier_checkpoints():
    assert PICTURES.to_dict() == {
        "labels": ["a", "b"],
        "input": "image",
        "options": {"num_classes": 2, "in_channels": 3, "image_size": [8, 8]},
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
        "background": "white",
        "full_scale": 4095,
    }
    assert CLIPS.to_dict()["audio"] == {
        "sampling_rate": 4000,
        "max_length": 400,
        "standardize": "clip",
        "representation": "waveform",
    }
    older = {name: value for name, value in PICTURES.to_dict().items() if name not in ("background", "full_scale")}
    assert Facts.from_dict(older).pixels.background is None


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"options": {}}, "lack the entry 'input'"),
        ({"input": "pictures"}, "kind='pictures'; expected one of 'tokens'"),
        ({"input": "image", "median": [1.0]}, "unknown entries median"),
        ({"input": "image", "mean": [1.0]}, "Pixels lacks an entry: .*'std'"),
        ({"input": "waveform", "audio": {"sampling_rate": 1, "loudness": 1}}, "Audio has no entry 'loudness'"),
    ],
)
def test_what_does_not_fit_is_said(stored, message):
    with pytest.raises(ValueError, match=message):
        Facts.from_dict(stored)


@pytest.mark.parametrize(
    ("ours", "change", "message"),
    [
        (PICTURES, {"background": "black"}, "other pictures .*, background='white'; give --data.background black"),
        (PICTURES, {"full_scale": 255.0}, "full_scale=4095; give the data .* white was 255.0"),
        (CLIPS, {"sampling_rate": 8000}, "other audio .*, sampling_rate=4000; give --data.sampling_rate 8000"),
        (
            CLIPS,
            {"representation": "log_mel", "n_mels": 40},
            "representation=waveform, n_mels=None; give --data.representation log_mel --data.log_mel.n_mels 40",
        ),
        (TEXTS, {"fingerprint": "00ff"}, "another vocabulary than the data"),
    ],
)
def test_a_checkpoint_has_to_agree(ours, change, message):
    ours.check(ours)
    name, part = next(iter(ours.parts.items()))
    with pytest.raises(ValueError, match=f"^ckpt_path: the checkpoint .*{message}"):
        ours.check(dataclasses.replace(ours, **{name: dataclasses.replace(part, **change)}))


def test_what_is_not_known_agrees():
    unknown = dataclasses.replace(PICTURES.pixels, background=None, full_scale=None, mean=[9.0] * 3)
    PICTURES.check(dataclasses.replace(PICTURES, pixels=unknown))
    dataclasses.replace(PICTURES, pixels=unknown).check(PICTURES)
    TEXTS.check(dataclasses.replace(TEXTS, tokens=None))


def test_the_front_end_and_what_a_saved_model_says_of_it():
    assert isinstance(CLIPS.frontend(), AudioFrontend)
    assert PICTURES.frontend() is TEXTS.frontend() is None
    assert CLIPS.preparation() == {
        "version": 1,
        "input": "waveform",
        "audio": CLIPS.to_dict()["audio"],
        "in_channels": 1,
        "max_length": 400,
    }
    assert TEXTS.preparation()["tokens"] == {"kind": "bytes", "pad": 0, "vocab_size": 257}
    assert PICTURES.preparation() == {
        name: value for name, value in PICTURES.to_dict().items() if name not in ("labels", "options")
    } | {"version": 1, "in_channels": 3, "image_size": [8, 8]}
