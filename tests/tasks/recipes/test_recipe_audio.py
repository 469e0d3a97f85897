"""The recipe of audio: frames, batches and augmentation for how many clips of which lengths and rates."""

import math

import numpy as np
import pytest
from small_audio import clip_folder, write_clip

from lambda_seq.inference.frontends import LogMelOptions
from lambda_seq.models import accepted_options
from lambda_seq.tasks.data import AudioData
from lambda_seq.tasks.recipes.audio import OPTIONS, Clips, choose, measure, strides_of


def chosen(given=None, **measured):
    return {choice.option: choice.value for choice in choose(Clips(given=given or {}, **measured))}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (  # spoken digits
            {"rows": 2_400, "rate": 8_000, "median": 0.42, "long": 0.7, "longest": 2.28},
            {
                "model.options.stem": "spectrum",
                "model.options.strides": [67],
                "data.max_seconds": 0.7,
                "data.batch_size": 32,
                "data.augmentation.speed": 0.1,
                "trainer.max_epochs": 20,
                "data.cache": True,
            },
        ),
        (  # spoken words
            {"rows": 900, "rate": 16_000, "median": 1.0, "long": 1.0, "longest": 1.0},
            {
                "model.options.strides": [160],
                "data.batch_size": 32,
                "data.augmentation.speed": 0.15,
                "data.augmentation.shift": 0.1,
                "model.options.dropout": 0.2,
                "trainer.max_epochs": 43,
            },
        ),
        (  # sounds of five seconds
            {"rows": 240, "rate": 22_050, "median": 5.0, "long": 5.0, "longest": 5.0},
            {"model.options.strides": [220], "data.batch_size": 16, "trainer.max_epochs": 60},
        ),
        (  # songs
            {"rows": 8_000, "rate": 44_100, "median": 180, "long": 300, "longest": 600},
            {
                "model.options.strides": [441, 2],
                "data.max_seconds": 30.0,
                "data.batch_size": 2,
                "data.cache": False,
                "trainer.max_epochs": 3,
            },
        ),
        (
            {"rows": 900, "frames": True},
            {"model.options.stem": "features", "model.options.strides": []},
        ),
        (
            {"rows": 900, "frames": True, "median": 20, "long": 25, "longest": 26},
            {"model.options.stem": "features", "model.options.strides": [2]},
        ),
    ],
)
def test_choices(measured, expected):
    found = chosen(**measured)
    assert {name: found.get(name) for name in expected} == expected
    assert ("data.max_seconds" in found) == ("data.max_seconds" in expected)


@pytest.mark.parametrize("rate", [1_000, 4_000, 8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.05, 0.5, 1, 5, 12, 30])
@pytest.mark.parametrize("stem", ["waveform", "spectrum"])
def test_frames_are_of_4_to_20_milliseconds(rate, seconds, stem):
    given = {"model.options.stem": stem}
    found = chosen(given, rows=1_000, rate=rate, median=seconds, long=seconds, longest=seconds)
    frame = math.prod(found["model.options.strides"])
    milliseconds, frames = 1000 * frame / rate, seconds * rate / frame
    assert 2.8 < milliseconds < 22.7  # of convolutions the nearest power of two samples
    assert milliseconds < 5.7 or frames > 35
    assert milliseconds > 11.3 or frames < 2_125


def test_given_strides_are_those_of_convolutions():
    sizes = {"rows": 900, "rate": 16_000, "median": 1.0, "long": 1.0, "longest": 1.0}
    assert chosen({"model.options.strides": [8, 4]}, **sizes)["model.options.stem"] == "waveform"
    own = {"model.options.strides": [200, 1], "model.options.stem": "spectrum"}
    assert chosen(own, **sizes)["model.options.stem"] == "spectrum"
    assert chosen({"model.options.stem": "waveform"}, **sizes)["model.options.strides"] == [8, 4, 4]


def test_strides_multiply_to_powers_of_two():
    assert [strides_of(doublings) for doublings in (1, 4, 5, 6, 7, 8, 9)] == [
        *([2], [4, 2, 2], [4, 4, 2], [4, 4, 4], [8, 4, 4], [8, 8, 4], [8, 8, 8])
    ]


def test_the_network_takes_what_is_chosen():
    names = {name.removeprefix("model.options.") for name in OPTIONS if name.startswith("model.options.")}
    assert names <= accepted_options("lambda_encoder")


def test_clips_are_measured(tmp_path):
    folder = clip_folder(tmp_path / "clips", {"train": 6, "validation": 2})  # of 400 to 600 samples at 4 kHz
    write_clip(folder / "train" / "high" / "long.wav", np.ones(8_000), 4_000)
    found = measure(AudioData(str(folder)))
    assert (found.rows, found.validation, found.classes) == (13, 4, (7, 6))
    assert found.rate == 4_000
    assert (found.median, found.longest) == (520 / 4_000, 2.0)
    assert found.sentence == "13 training clips at 4,000 Hz, median 0.13 s, longest 2 s, 2 classes"
    assert measure(AudioData(str(folder), max_seconds=0.2)).longest == 0.2
    mels = AudioData(str(folder), representation="log_mel", log_mel=LogMelOptions(n_mels=8, hop_length=80))
    assert (measure(mels).frames, measure(mels).hop) == (True, 0.02)
