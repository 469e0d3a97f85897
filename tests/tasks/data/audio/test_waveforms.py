"""Files as samples, and what is said of files that are none."""

import io
import struct

import datasets
import numpy as np
import pytest
import soundfile
import torch
from small_audio import sound, write_clip

from lambda_seq.inference.clips import read_header, read_samples, resample
from lambda_seq.tasks.data.audio.waveforms import Clips, DecodedClips, pad_clips, read_headers
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.cells import read_all


def tone(hertz, rate, seconds=0.5):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def clips(cells, root=None):
    table = datasets.Dataset.from_dict({"audio": cells})
    return Clips(Rows(table, np.arange(len(table)), None), "audio", "train split of path='here'", root)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
def test_lossless_files_give_back_their_samples(tmp_path, suffix):
    samples = sound(0, np.random.default_rng(0))
    file = write_clip(tmp_path / f"a{suffix}", samples)
    assert read_header(str(file)) == (4000, 600, 1)
    found = read_samples(str(file), 4000)
    assert found.dtype == np.float32
    assert np.abs(found - samples).max() <= 1 / 32768
    assert np.array_equal(read_samples(file.read_bytes(), 4000), found)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
def test_lossy_files_come_close(tmp_path, suffix):
    samples = tone(440, 16000)
    found = read_samples(str(write_clip(tmp_path / f"a{suffix}", samples, 16000)), 16000)
    assert len(found) == len(samples)
    assert np.corrcoef(found, samples)[0, 1] > 0.95


def test_stereo_at_96_kilohertz_is_mixed_and_resampled(tmp_path):
    left, right = tone(1000, 96000), tone(20000, 96000)  # the right one is above what 16 kHz can hold
    file = write_clip(tmp_path / "stereo.wav", np.stack([left, right], 1), 96000)
    assert read_header(str(file)) == (96000, 48000, 2)
    assert read_header(str(file)).length(16000) == 8000
    found = read_samples(str(file), 16000)
    assert len(found) == 8000
    inner = slice(200, -200)
    assert np.abs(found - 0.5 * tone(1000, 16000))[inner].max() < 1e-3


def test_opposite_channels_cancel(tmp_path):
    left = tone(300, 8000)
    file = write_clip(tmp_path / "a.wav", np.stack([left, -left], 1), 8000)
    assert np.abs(read_samples(str(file), 8000)).max() <= 1 / 32768


@pytest.mark.parametrize(("old", "new"), [(44100, 16000), (8000, 11025), (12345, 16000), (96000, 8000)])
def test_resampling_keeps_time_and_pitch(old, new):
    found = resample(tone(700, old), old, new)
    expected = tone(700, new)
    assert abs(len(found) - len(expected)) <= 1
    count = min(len(found), len(expected))
    assert np.abs(found[:count] - expected[:count])[300:-300].max() < 2e-3


def test_a_single_sample_stays_one(tmp_path):
    file = write_clip(tmp_path / "one.wav", np.array([0.5], np.float32), 96000)
    for rate in (96000, 8000, 44100):
        found = read_samples(str(file), rate)
        assert len(found) >= 1
        assert np.isfinite(found).all()
        assert read_header(str(file)).length(rate) == 1


def test_silence_is_zeros(tmp_path):
    assert not read_samples(str(write_clip(tmp_path / "silence.flac", np.zeros(100), 8000)), 4000).any()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".aiff", ".mp3"])
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("part", [0.5, 0.98])
def test_truncated_files(tmp_path, suffix, as_bytes, part):
    file = write_clip(tmp_path / f"a{suffix}", sound(0, np.random.default_rng(0), 30000), 16000)
    raw = file.read_bytes()[: int(file.stat().st_size * part)]
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=r"cut off|no audio that can be read|holds no samples"):
        read_samples(raw if as_bytes else str(file), 16000)


def test_an_ogg_file_cut_between_pages_is_a_shorter_one(tmp_path):
    raw = write_clip(tmp_path / "a.ogg", sound(0, np.random.default_rng(0), 60000), 16000).read_bytes()
    last = raw.rfind(b"OggS")
    assert 0 < len(read_samples(raw[:last], 16000)) < 60000
    with pytest.raises(ValueError, match="cut off: the last page is not whole"):
        read_header(raw[: last + 5])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("content", [b"", b"R", b"no audio, but a text " * 20, b"\x00" * 5000])
def test_no_audio_at_all(tmp_path, suffix, content):
    (tmp_path / f"a{suffix}").write_bytes(content)
    for source in (str(tmp_path / f"a{suffix}"), content):
        with pytest.raises(ValueError, match=r"holds no bytes|no audio that can be read"):
            read_samples(source, 8000)


def test_files_without_samples_or_with_bad_ones(tmp_path):
    empty = write_clip(tmp_path / "empty.wav", np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="holds no samples"):
        read_header(str(empty))
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, 0], np.float32), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="infinite or no numbers"):
        read_samples(str(tmp_path / "nan.wav"), 8000)
    with pytest.raises(ValueError, match="there is no such file"):
        read_header(str(tmp_path / "missing.wav"))


def test_a_wav_of_unannounced_length_is_read(tmp_path):
    """As programs write that cannot go back to the header when they are done."""
    raw = bytearray(write_clip(tmp_path / "a.wav", tone(300, 8000), 8000).read_bytes())
    place = raw.index(b"data") + 4
    raw[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert len(read_samples(bytes(raw), 8000)) == 4000


def test_cells_of_all_kinds(tmp_path):
    file = write_clip(tmp_path / "in" / "a.wav", tone(300, 8000), 8000)
    raw = file.read_bytes()
    relative = clips(["in/a.wav", str(file)], tmp_path)
    assert [relative.name(row) for row in range(2)] == [str(file)] * 2
    binary = clips([raw])
    assert binary.name(0) == "0"
    pairs = clips([{"bytes": raw, "path": "a name.wav"}, {"bytes": None, "path": str(file)}])
    assert [pairs.name(row) for row in range(2)] == ["0", str(file)]
    for some in (relative, binary, pairs):
        for row in range(len(some)):
            assert some.header(row) == (8000, 4000, 1)
            assert np.array_equal(some.samples(row, 8000), read_samples(raw, 8000))
    column = datasets.Dataset.from_dict({"audio": [raw]}).cast_column("audio", datasets.Audio(decode=False))
    hub = Clips(Rows(column, np.array([0]), None), "audio", "here")
    assert hub.header(0) == (8000, 4000, 1)


def test_errors_name_row_and_file(tmp_path):
    for cell, words in (
        (None, "row 1: no audio; replace or remove it"),
        ({"bytes": None, "path": None}, "row 1: no audio"),
        ({"bytes": b"text", "path": "b.flac"}, r"row 1, b.flac: no audio that can be read"),
        ({"bytes": None, "path": "gone.wav"}, r"row 1, gone.wav: there is no such file"),
    ):
        some = clips([{"bytes": b"text", "path": None}, cell])
        for read in (some.header, lambda row, some=some: some.samples(row, 8000)):
            with pytest.raises(ValueError, match=r"train split of path='here', " + words):
                read(1)


def test_all_bad_clips_are_listed_at_once(tmp_path):
    good = str(write_clip(tmp_path / "good.wav", tone(300, 8000), 8000))
    first, second = clips([good, "a.wav", "b.wav"]), clips(["c.wav"])
    with pytest.raises(ValueError, match=r"3 clips cannot be used:\n.*a\.wav.*\n.*b\.wav.*\n.*c\.wav"):
        read_headers([first, second])
    with pytest.raises(ValueError, match=r"25 clips(.*\n){21}  and 5 more$"):
        read_headers([clips(["x.wav"] * 25)])
    with pytest.raises(ValueError, match=r"^train split.*c\.wav"):
        read_headers([clips([good]), second])
    assert read_headers([clips([good]), clips([good, good])]) == [[(8000, 4000, 1)], [(8000, 4000, 1)] * 2]
    with pytest.raises(ZeroDivisionError):  # only what is said of a clip is collected
        read_all([(first, lambda row: 1 / 0)])


def test_decoded_clips_are_the_clips_in_16_bits(tmp_path):
    rng = np.random.default_rng(0)
    files = [str(write_clip(tmp_path / f"{row}.wav", sound(row, rng, 300 + row))) for row in range(2)]
    loud = tmp_path / "loud.wav"
    soundfile.write(loud, np.array([2.0, -2.0, 0.25], np.float32), 4000, subtype="FLOAT")
    some = clips([*files, str(loud)])
    kept = DecodedClips(some, 4000)
    assert kept.flat.dtype == np.int16
    for row in range(2):
        assert np.abs(kept.samples(row, 4000) - some.samples(row, 4000)).max() <= 0.5 / 32768
    assert kept.samples(2, 4000).tolist() == [32767 / 32768, -1, 0.25]
    with pytest.raises(ValueError, match="rate=8000: the clips are kept at 4000"):
        kept.samples(0, 8000)
    with pytest.raises(ValueError, match="2 clips cannot be used"):
        DecodedClips(clips(["x.wav", "y.wav"]), 4000)


def item(count, **others):
    return {"x": torch.ones(count), "id": "0"} | others


def test_batches_are_padded_and_masked_only_if_needed():
    batch = pad_clips([item(3, label=1), item(9, label=0)], multiple=8, most=100)
    assert batch["x"].shape == (2, 16)
    assert batch["mask"].sum(1).tolist() == [3, 9]
    assert torch.equal(batch["x"], batch["mask"].float())
    assert batch["label"].tolist() == [1, 0]
    assert set(pad_clips([item(9), item(9)], multiple=8, most=9)) == {"x", "id"}
    assert "mask" in pad_clips([item(9), item(9)], multiple=8, most=10)


def test_damaged_bytes_leave_no_noise_behind(capfd):
    """Broken files make libsndfile look in front of the first byte; no callback shall complain of that."""
    stream = io.BytesIO()
    soundfile.write(stream, sound(0, np.random.default_rng(0), 30000), 16000, format="FLAC")
    raw = stream.getvalue()
    for part in range(1, 20):
        with pytest.raises(ValueError, match=r"cut off|no audio"):
            read_samples(raw[: len(raw) * part // 20], 16000)
    assert "Traceback" not in capfd.readouterr().err
