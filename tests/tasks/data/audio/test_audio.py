"""Audio as batches of samples: where it is found, what is measured, and what is said of bad files."""

import io
import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from paths import DATA
from small_audio import SPLITS, clip_folder, sound, spoil, write_clip
from small_data import write_jsonl

from lambda_seq.inference.frontends import LogMelOptions
from lambda_seq.tasks.data import AudioData
from lambda_seq.tasks.data.audio.augmentation import WaveformAugmentation
from lambda_seq.tasks.data.audio.files import load_audio
from lambda_seq.tasks.data.audio.tones import KINDS, TONES


@pytest.fixture
def folder(tmp_path):
    return clip_folder(tmp_path / "clips", SPLITS)


def batches(loader):
    return list(loader)


def first(loader):
    return next(iter(loader))


def items(data, training=False):
    return data.rows_as_items(data.split("train"), "train", training=training)


def test_facts_and_batches_of_a_folder(folder):
    data = AudioData(str(folder), batch_size=4, pad_to_multiple=50)
    assert data.facts.to_dict() == {
        "labels": ["high", "low"],
        "input": "waveform",
        "options": {"num_classes": 2, "in_channels": 1, "max_length": 600},
        "target": {"rows": 12, "counts": [6, 6]},
        "audio": {
            "sampling_rate": 4000,
            "max_length": 600,
            "standardize": "clip",
            "representation": "waveform",
            "clip_length": 600,
            "evaluate": "whole",
        },
    }
    assert json.loads(json.dumps(data.facts.to_dict())) == data.facts.to_dict()  # primitives
    train = batches(data.train_dataloader())
    assert len(train) == 3
    for batch in train:
        assert batch["x"].dtype == torch.float32
        assert batch["x"].shape[1] % 50 == 0
        assert batch["x"].shape[1] < batch["mask"].sum(1).max() + 50
        assert not batch["x"][~batch["mask"]].any()
    test = first(data.test_dataloader())
    assert test["label"].tolist() == [0, 0, 1, 1]
    assert test["id"][0] == str(folder / "test" / "high" / "00.wav")
    expected, _ = soundfile.read(test["id"][3], dtype="float32")
    assert np.array_equal(test["x"][3][test["mask"][3]], expected)


def test_any_kind_of_file_in_one_split(tmp_path):
    rng = np.random.default_rng(0)
    for name, suffixes in {"a": (".wav", ".FLAC"), "b": (".ogg", ".mp3", ".aiff")}.items():
        for suffix in suffixes:
            write_clip(tmp_path / "kinds" / name / "speaker" / f"x{suffix}", sound(0, rng, 16000), 16000)
    (tmp_path / "kinds" / "b" / "notes.txt").write_text("left out")
    (tmp_path / "kinds" / "b" / ".hidden.wav").write_text("left out")
    data = AudioData(str(tmp_path / "kinds"), validation_fraction=0, batch_size=5)
    assert data.split("train").labels.tolist() == [0, 0, 1, 1, 1]
    assert first(data.train_dataloader())["x"].shape == (5, 16000)


def test_splits_by_other_names_and_clips_outside_them(folder, caplog):
    (folder / "validation").rename(folder / "dev")
    write_clip(folder / "noise" / "wind.wav", sound(0, np.random.default_rng(0)))
    tables = load_audio(str(folder))
    assert {name: len(table) for name, table in tables.items()} == {"train": 12, "validation": 4, "test": 4}
    assert "1 of 21 files lie outside the splits and are left out" in caplog.text
    assert "wind.wav" in caplog.text


def test_folders_without_classes_or_with_loose_clips(tmp_path):
    loose = clip_folder(tmp_path / "loose", {"": 2}, names=("",) * 1)
    with pytest.raises(ValueError, match="there are no classes; put files of each class into a folder"):
        _ = AudioData(str(loose)).splits
    mixed = clip_folder(tmp_path / "mixed", {"train": 2})
    stray = write_clip(mixed / "train" / "stray.wav", np.zeros(5))
    with pytest.raises(ValueError, match=rf"1 of 5 rows have no label .*: row 4 \({stray}\); label"):
        _ = AudioData(str(mixed)).splits
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="no data found in this folder"):
        _ = AudioData(str(tmp_path / "nothing")).splits


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_of_paths_beside_the_clips(folder, suffix):
    files = sorted((folder / "train").rglob("*.wav"))
    rows = [{"path": str(file.relative_to(folder)), "label": file.parent.name} for file in files]
    table = datasets.Dataset.from_list(rows)
    file = folder / f"list.{suffix}"
    {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}[suffix](file)
    for path in (file, folder):  # the table itself, and a folder with a table and clips
        data = AudioData(str(path), validation_fraction=0, batch_size=12)
        assert data.labels == ["high", "low"]
        assert sorted(first(data.train_dataloader())["id"]) == [str(clip) for clip in files]


def test_a_folder_with_tables_for_splits(folder, caplog):
    for split in ("train", "test"):
        files = sorted((folder / split).rglob("*.wav"))
        rows = [{"file_name": str(file.relative_to(folder)), "label": file.parent.name} for file in files]
        write_jsonl(folder / f"{split}-00.jsonl", rows)
    data = AudioData(str(folder), validation_fraction=0)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 12, "test": 4}
    (folder / "more.csv").write_text("file_name,label\na.wav,high\n")
    assert len(AudioData(str(folder), validation_fraction=0).split("train")) == 12
    assert "more.csv: left out, as the files named for splits are of another kind" in caplog.text


def table_of_bytes(file, cells, labels):
    names = datasets.ClassLabel(names=["high", "low"])
    table = datasets.Dataset.from_dict({"audio": cells, "label": labels})
    table.cast(datasets.Features(audio=datasets.Audio(decode=False), label=names)).to_parquet(file)


def encoded(samples, rate=4000):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="FLAC")
    return stream.getvalue()


def test_parquet_as_on_the_hub(tmp_path):
    rng = np.random.default_rng(0)
    cells = [{"bytes": encoded(sound(label, rng)), "path": f"{label}.flac"} for label in (0, 1, 0, 1)]
    table_of_bytes(tmp_path / "clips.parquet", cells, [0, 1, 0, 1])
    data = AudioData(str(tmp_path / "clips.parquet"), validation_fraction=0, batch_size=4)
    assert data.labels == ["high", "low"]
    batch = first(data.train_dataloader())
    assert batch["x"].shape == (4, 600)
    assert sorted(batch["id"]) == ["0", "1", "2", "3"]
    cells[2]["bytes"] = b"no audio"
    table_of_bytes(tmp_path / "bad.parquet", cells, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"train split of path=.*bad.parquet', row 2, 0.flac: no audio"):
        _ = AudioData(str(tmp_path / "bad.parquet"), validation_fraction=0).facts


def test_a_column_that_is_no_audio(tmp_path):
    rows = [{"audio": 1, "label": "a"}, {"audio": 2, "label": "b"}]
    with pytest.raises(ValueError, match=r"audio_column='audio' holds .*expected audio, bytes of files or paths"):
        _ = AudioData(str(write_jsonl(tmp_path / "a.jsonl", rows)), validation_fraction=0).facts


def test_mixed_rates_become_that_of_most_clips_or_the_one_given(folder, caplog):
    write_clip(folder / "train" / "low" / "fast.wav", sound(1, np.random.default_rng(0), 6000, 16000), 16000)
    data = AudioData(str(folder), batch_size=13)
    assert data.facts.audio.sampling_rate == 4000
    assert data.max_length == 1500
    assert "4000 (12 clips), 16000 (1 clips): all are resampled to 4000" in caplog.text
    assert first(data.train_dataloader())["mask"].sum(1).max() == 1500
    caplog.clear()
    given = AudioData(str(folder), batch_size=13, sampling_rate=2000)
    assert given.facts.audio == replace(data.facts.audio, sampling_rate=2000, max_length=750, clip_length=750)
    assert first(given.train_dataloader())["mask"].sum(1).max() == 750
    assert not caplog.text


def test_long_clips_are_cropped_at_random_or_to_their_middle(folder):
    data = AudioData(str(folder), max_seconds=0.05)
    whole = items(AudioData(str(folder)))
    assert data.facts.options["max_length"] == 200
    middle = items(data)[5]["x"]
    assert torch.equal(middle, whole[5]["x"][200:400])
    training = items(data, training=True)
    assert len({training[epoch, 5]["x"].numpy().tobytes() for epoch in range(10)}) > 5
    windows = whole[5]["x"].unfold(0, 200, 1)
    assert all((training[epoch, 5]["x"] == windows).all(1).any() for epoch in range(10))
    assert torch.equal(training[3, 5]["x"], items(data, training=True)[3, 5]["x"])


def test_augmentation_depends_on_seed_epoch_and_row_alone(folder):
    options = {"augmentation": WaveformAugmentation(speed=0.1, noise=(10, 20), shift=0.01), "cache": True}
    data = AudioData(str(folder), **options)
    training = items(data, training=True)
    again = items(AudioData(str(folder), **options), training=True)
    for key in ((0, 0), (3, 1), (3, 2)):
        assert torch.equal(training[key]["x"], again[key]["x"])
    assert len({training[key]["x"].numpy().tobytes() for key in ((0, 0), (1, 0), (0, 1), (1, 1))}) == 4
    data.seed = 5
    assert not torch.equal(items(data, training=True)[0, 0]["x"], training[0, 0]["x"])
    assert torch.equal(items(data)[0]["x"], items(AudioData(str(folder), cache=True))[0]["x"])  # not in evaluation


def test_changes_that_are_too_long_for_the_clips_are_said(folder, caplog):
    """Clips of 400 to 600 samples at 4 kHz: 0.1 to 0.15 seconds."""
    data = AudioData(str(folder), augmentation=WaveformAugmentation(shift=0.03, gap=0.5))
    short = items(data, training=True)
    assert "augmentation.shift=0.03 s is more than a quarter of 4 of 12 training clips, of 0.1 to 0.15 s" in caplog.text
    assert "augmentation.gap=0.5 s is more than a quarter of 12 of 12 training clips" in caplog.text
    assert "at most a quarter of their length. Choose with --data.augmentation.gap" in caplog.text
    for epoch in range(20):
        assert torch.count_nonzero(short[epoch, 0]["x"]) >= 400 // 2
    caplog.clear()
    items(AudioData(str(folder), augmentation=WaveformAugmentation(shift=0.02)), training=True)
    assert not caplog.text


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_parquet_holds_clips_as_bytes(tmp_path, kind):
    """As pandas writes it, without a word of `datasets`, beside a name that is of no file here."""
    rng = np.random.default_rng(0)
    raw = [encoded(sound(label, rng)) for label in (0, 1, 0, 1)]
    cells = raw if kind == "binary" else [{"bytes": one, "path": None} for one in raw]
    rows = {"recorded": cells, "file": ["gone.wav"] * 4, "label": ["a", "b", "a", "b"]}
    pd.DataFrame(rows).to_parquet(tmp_path / "clips.parquet")
    data = AudioData(str(tmp_path / "clips.parquet"), validation_fraction=0, batch_size=4)
    assert first(data.train_dataloader())["x"].shape == (4, 600)


def test_a_missing_clip_of_a_table_is_named(folder):
    rows = [{"file_name": f"train/low/{name}", "label": name} for name in ("00.wav", "gone.wav")]
    for path, options in ((folder, {}), (folder / "test", {"predict_path": str(folder / "new.jsonl")})):
        file = write_jsonl(folder / "new.jsonl", rows)
        data = AudioData(str(file if path is folder else folder / "clips.jsonl"), validation_fraction=0, **options)
        write_jsonl(folder / "clips.jsonl", [rows[0], rows[0] | {"label": "b"}])
        with pytest.raises(ValueError, match=r"row 1, train/low/gone.wav: there is no such file; replace or remove"):
            data.predict_dataloader() if options else data.headers


def test_clips_that_a_cache_would_cut_are_said(folder, caplog):
    soundfile.write(folder / "train" / "low" / "loud.wav", np.full(500, 3000.0), 4000, subtype="FLOAT")
    items(AudioData(str(folder), cache=True))
    assert "1 of 13 clips go beyond -1 and 1, to 3e+03, and are cut off there" in caplog.text
    assert "--data.cache false" in caplog.text
    assert items(AudioData(str(folder)))[12]["x"].max() == 3000


def test_batches_hold_clips_of_similar_length(folder):
    lengths = AudioData(str(folder)).lengths(AudioData(str(folder)).split("train"))
    assert lengths.tolist() == [400, 440, 480, 520, 560, 600] * 2
    data = AudioData(str(folder), batch_size=2, pad_to_multiple=1)
    assert all("mask" not in batch for batch in data.train_dataloader())
    assert AudioData(str(folder), bucket=False).lengths(data.split("train")) is None
    short = AudioData(str(folder), max_seconds=0.11)
    assert short.lengths(short.split("train")).max() == 440


def test_cached_clips_are_the_same_but_for_rounding(folder):
    plain, cached = (AudioData(str(folder), sampling_rate=3000, cache=cache) for cache in (False, True))
    for one, other in zip(items(plain), items(cached), strict=True):
        assert one["id"] == other["id"]
        assert one["label"] == other["label"]
        assert (one["x"] - other["x"]).abs().max() <= 0.5 / 32768


def test_log_mel_frames_are_standardised_by_training_clips(folder):
    data = AudioData(str(folder), representation="log_mel", log_mel=LogMelOptions(n_mels=8, n_fft=128), batch_size=12)
    facts = data.facts
    assert facts.kind == "features"
    assert facts.options == {"num_classes": 2, "in_channels": 8, "max_length": 15}
    assert facts.audio.hop_length == 40
    batch = first(data.train_dataloader())
    frames, mask = facts.frontend()(batch["x"], batch["mask"])
    assert frames.shape == (12, -(-batch["x"].shape[1] // 40), 8)
    real = frames[mask]
    assert torch.allclose(real.mean(0), torch.zeros(8), atol=1e-4)
    assert torch.allclose(real.std(0, correction=0), torch.ones(8), atol=1e-3)
    with pytest.raises(ValueError, match=r"log_mel\.n_mels=60"):
        _ = AudioData(str(folder), representation="log_mel", log_mel=LogMelOptions(n_mels=60, n_fft=64)).facts


def test_samples_are_standardised_by_training_clips(folder):
    data = AudioData(str(folder), standardize="train", batch_size=12)
    batch = first(data.train_dataloader())
    x, mask = data.facts.frontend()(batch["x"], batch["mask"])
    assert float(x[mask].mean()) == pytest.approx(0, abs=1e-4)
    assert float(x[mask].std()) == pytest.approx(1, abs=1e-3)


def test_all_bad_headers_are_listed_before_training(folder):
    text, empty, cut = spoil(folder)
    with pytest.raises(ValueError, match="2 clips cannot be used") as error:
        _ = AudioData(str(folder)).facts
    assert f"train split of path={str(folder)!r}, row 0, {text}: no audio that can be read" in str(error.value)
    assert f"validation split of path={str(folder)!r}, row 0, {empty}: holds no samples" in str(error.value)
    text.unlink()
    empty.unlink()
    for cache in (False, True):
        data = AudioData(str(folder), cache=cache)
        assert data.facts.labels == ["high", "low"]
        with pytest.raises(ValueError, match=rf"test split of .*{cut}: damaged or cut off.*; replace or remove it"):
            batches(data.test_dataloader())


@pytest.mark.parametrize("workers", [0, 1])
def test_without_verification_a_bad_file_is_named_when_it_is_read(folder, workers):
    text, _, _ = spoil(folder)
    data = AudioData(str(folder), verify=False, bucket=False, max_seconds=0.1, sampling_rate=4000, num_workers=workers)
    data.headers = {"train": []}  # as if the file were none of those looked at
    with pytest.raises(ValueError, match=rf"{text}: no audio that can be read"):
        batches(data.train_dataloader())


def test_a_part_of_the_headers_is_read_without_verification(folder, monkeypatch):
    monkeypatch.setattr("lambda_seq.tasks.data.audio.data.SAMPLE", 3)
    data = AudioData(str(folder), verify=False, bucket=False)
    assert {name: len(headers) for name, headers in data.headers.items()} == {"train": 3}
    assert data.facts.audio.sampling_rate == 4000
    assert len(first(data.train_dataloader())["id"]) == 12
    data = AudioData(str(folder), verify=False)
    assert {name: len(headers) for name, headers in data.headers.items()} == {"train": 12}


def test_silence_a_single_sample_and_96_kilohertz_stereo_are_clips(folder):
    train = folder / "train" / "low"
    write_clip(train / "silence.wav", np.zeros(500))
    write_clip(train / "single.wav", np.ones(1))
    write_clip(train / "wide.wav", 0.1 * np.ones((9600, 2)), 96000)
    data = AudioData(str(folder), batch_size=15)
    found = {Path(item["id"]).name: item["x"] for item in items(data)}
    assert not found["silence.wav"].any()
    assert found["single.wav"].shape == (1,)
    assert found["wide.wav"].shape == (400,)
    batch = first(data.train_dataloader())
    x, _ = data.facts.frontend()(batch["x"], batch["mask"])
    assert x.isfinite().all()


def test_labels_that_training_has_not(folder):
    (folder / "test" / "low").rename(folder / "test" / "middle")
    with pytest.raises(ValueError, match=r"test split of .*row 2 has the label 'middle', which no training row has"):
        _ = AudioData(str(folder)).facts


def test_predicted_clips_need_no_labels_and_are_verified(folder, tmp_path):
    more = clip_folder(tmp_path / "test", {"": 2}, names=("",), rate=8000)  # named as a split, at another rate
    data = AudioData(str(folder), predict_path=str(more))
    batch = first(data.predict_dataloader())
    assert batch["id"] == [str(more / "00.wav"), str(more / "01.wav")]
    assert "label" not in batch
    assert batch["mask"].sum(1).tolist() == [200, 220]  # resampled to what training has
    one = AudioData(str(folder), predict_path=str(more / "01.wav"))
    assert first(one.predict_dataloader())["id"] == [str(more / "01.wav")]
    (more / "00.wav").write_text("no audio")
    (more / "01.wav").write_text("no audio")
    with pytest.raises(ValueError, match=rf"2 clips cannot be used:\n  predict_path='{more}', row 0"):
        data.predict_dataloader()


def test_all_clips_are_predicted_whatever_their_folders_are_called(folder, tmp_path):
    more = tmp_path / "my [clips]*"
    for name in ("speed_test_03", "train/b", "test/c", "x/train-yard/d"):
        write_clip(more / f"{name}.wav", np.zeros(5))
    (batch,) = AudioData(str(folder), predict_path=str(more)).predict_dataloader()
    assert [Path(name).stem for name in batch["id"]] == ["speed_test_03", "c", "b", "d"]
    data = AudioData(str(clip_folder(tmp_path / "[c]", {"": 2}, names=("train-yard", "test-bench"))))
    assert data.labels == ["test-bench", "train-yard"]
    assert sum(map(len, data.splits.values())) == 4


def test_clips_of_test_without_classes_are_predicted(folder):
    for clip in sorted((folder / "test").rglob("*.wav")):
        clip.rename(folder / "test" / f"{clip.parent.name}-{clip.name}")
    data = AudioData(str(folder))
    assert not data.tested
    assert len(first(data.predict_dataloader())["id"]) == 4
    with pytest.raises(ValueError, match="its 4 rows have no labels, so that it cannot be tested"):
        data.test_dataloader()


def test_generated_tones_are_the_same_each_time():
    data, again = AudioData(TONES), AudioData(TONES)
    assert data.labels == sorted(KINDS)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 600, "validation": 150, "test": 150}
    assert data.facts == again.facts
    assert data.facts.audio.sampling_rate == 8000
    for row in (0, 333, 599):
        assert torch.equal(items(data)[row]["x"], items(again)[row]["x"])
        assert 2400 <= len(items(data)[row]["x"]) <= 8000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"sampling_rate": 0}, "sampling_rate=0: expected at least 1 sample"),
        ({"pad_to_multiple": 0}, "pad_to_multiple=0: expected at least 1 sample"),
        ({"max_seconds": 0.0}, "max_seconds=0.0: expected a time above 0"),
        ({"representation": "mfcc"}, "representation='mfcc'"),
        ({"standardize": "loud"}, "standardize='loud'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        AudioData("anywhere", **options)


@pytest.mark.parametrize(
    ("name", "rate", "length", "counts"),
    [
        ("fsdd", 8000, 18262, (2400, 300, 300)),
        ("arabic_speech_commands_10", 16000, 16000, (900, 300, 300)),
        ("esc10", 22050, 110250, (240, 80, 80)),
    ],
)
def test_real_data(name, rate, length, counts):
    if not (DATA / name).is_dir():
        pytest.skip(f"optional data set not found: {DATA / name} (its folder is LAMBDA_SEQ_DATA or ../shared/data)")
    data = AudioData(str(DATA / name), batch_size=4)
    assert data.facts.audio.sampling_rate == rate
    assert data.max_length <= length
    assert tuple(len(data.splits[split]) for split in ("train", "validation", "test")) == counts
    assert len(data.labels) == 10
    batch = first(data.test_dataloader())
    assert batch["x"].abs().max() > 0.01


@pytest.mark.parametrize("table", ["train/metadata.csv", "train/metadata.jsonl"])
def test_clips_with_a_table_called_metadata(tmp_path, folder, table, caplog):
    file = tmp_path / "clips" / table
    rows = [{"file_name": f"high/0{row}.wav", "label": str(row % 2)} for row in range(4)]
    if file.suffix == ".csv":
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        write_jsonl(file, rows)
    found = load_audio(str(tmp_path / "clips"))
    assert found["train"]["label"][:] == ["0", "1", "0", "1"]
    assert found["train"][1]["audio"].endswith("train/high/01.wav")
    assert "clips that no table called metadata names are left out" in caplog.text


@pytest.mark.parametrize("name", ["dataset_info.json", "notes.csv", "labels.json"])
@pytest.mark.parametrize("whole", [False, True])
def test_tables_that_name_no_clips_do_not_stand_for_the_clips(tmp_path, folder, name, whole):
    content = {"notes.csv": "speaker,age\nx,9\n", "labels.json": '["high", "low"]', "dataset_info.json": "{}"}
    (folder / name).write_text(content[name])
    assert sum(map(len, load_audio(str(folder), whole=whole).values())) == 2 * sum(SPLITS.values())


@pytest.mark.parametrize("column", ["file_name", "Path", "wavfile"])
def test_a_table_that_names_clips_says_the_rows(folder, column):
    (folder / "some.csv").write_text(f"{column},label\ntrain/high/00.wav,a\ntrain/low/00.wav,b\n")
    assert load_audio(str(folder))["train"]["label"][:] == ["a", "b"]


def test_clips_of_a_relative_folder_that_holds_one_of_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, value in (("a", 0.5), ("a/a", 0.25)):
        write_clip(Path(place) / "1.wav", np.full(9, value, np.float32))
    known = clip_folder(tmp_path / "known", {"train": 2})
    data = AudioData(str(known), validation_fraction=0, predict_path="a")
    assert first(data.predict_dataloader())["x"][:, 0].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("seconds", [0.0, float("nan"), float("inf")])
def test_lengths_that_are_none(seconds):
    with pytest.raises(ValueError, match=r"max_seconds=.*: expected a time above 0"):
        AudioData("x", max_seconds=seconds)
