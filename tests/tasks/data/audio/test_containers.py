"""Files that do not say how long they are, say it wrongly, or are several: all that is in them is read."""

import io
import struct

import numpy as np
import pytest
import soundfile

from lambda_seq.inference.clips import read_header, read_samples

RATE = 16000
ID3 = b"ID3\x04\x00\x00\x00\x02\x00\x00" + b"\xff\xfb\x90\x00" * 8192  # 32 KiB of a cover that looks like frames
ID3V1 = b"TAG" + bytes(125)
SOUND = np.concatenate([0.3 * np.random.default_rng(0).standard_normal(8000), 0.1 * np.sin(np.arange(24000) / 9)])


def encoded(kind, samples=SOUND, rate=RATE, **options):
    stream = io.BytesIO()
    stereo = options.pop("stereo", False)
    samples = np.stack([samples, samples], 1) if stereo else samples
    with soundfile.SoundFile(stream, "w", rate, 1 + stereo, format=kind, **options) as file:
        file.write(samples)
    return stream.getvalue()


def mp3(mode="VARIABLE", rate=RATE, stereo=False):
    """A file, the place of its frame that says how many others there are, and the size of that frame."""
    options = {"subtype": "MPEG_LAYER_III", "bitrate_mode": mode, "compression_level": 0.5}
    raw = encoded("MP3", rate=rate, stereo=stereo, **options)
    first = rate >= 32000
    kbits = {
        True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    }[first][raw[2] >> 4]
    size = (144 if first else 72) * kbits * 1000 // rate + (raw[2] >> 1 & 1)
    note = raw[:size].find(b"Xing" if b"Xing" in raw[:size] else b"Info")
    assert note > 0
    return raw, note, size


def both(raw, tmp_path, rate=RATE):
    """Samples of a file, after its header was found to agree, in memory and on disk."""
    file = tmp_path / "some file"
    file.write_bytes(raw)
    found = read_samples(raw, rate)
    assert np.array_equal(read_samples(str(file), rate), found)
    for source in (raw, str(file)):
        assert read_header(source).frames == len(found)
    return found


def matches(found, expected, delay=0):
    """Whether samples are those expected, `delay` places later, but for what the codec needs to start."""
    return np.abs(found[delay + 3000 : delay + len(expected)] - expected[3000:]).max() < 1e-4


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(("rate", "stereo"), [(16000, False), (8000, True), (44100, True), (48000, False)])
def test_an_mp3_without_a_number_of_frames_is_read_to_its_end(tmp_path, mode, rate, stereo):
    raw, _, size = mp3(mode, rate, stereo)
    whole = read_samples(raw, rate)
    assert len(whole) == len(SOUND)
    delay = 576 if rate < 32000 else 1152
    for tagged in (raw[size:], ID3 + raw[size:], ID3 + ID3 + raw[size:] + ID3V1):
        found = both(tagged, tmp_path, rate)
        assert len(whole) < len(found) < len(whole) + 4 * 1152
        offset = next(place for place in range(2 * delay + 1) if matches(found, whole, place))
        assert offset <= 2 * delay


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_tags_around_an_mp3_change_nothing(tmp_path, mode):
    raw, _, _ = mp3(mode)
    whole = read_samples(raw, RATE)
    for tagged in (ID3 + raw, raw + ID3V1, ID3 + raw + ID3V1):
        assert np.array_equal(both(tagged, tmp_path), whole)


def test_an_mp3_that_notes_other_things_than_its_frames(tmp_path):
    raw, note, size = mp3()
    silent = raw[: note + 7] + b"\0" + raw[note + 8 :]  # flags: nothing is noted
    vbri = bytearray(raw)
    vbri[note : note + 4] = b"\0" * 4
    vbri[36:40] = b"VBRI"
    for other in (silent, bytes(vbri)):
        assert np.array_equal(both(other, tmp_path), read_samples(raw[size:], RATE))


@pytest.mark.parametrize("difference", [-2, -1, 1])
def test_a_number_of_frames_that_counts_otherwise(tmp_path, difference):
    """Some encoders count the frame that notes it, some do not."""
    raw, note, _ = mp3()
    frames = struct.unpack_from(">I", raw, note + 8)[0] + difference
    found = both(raw[: note + 8] + struct.pack(">I", frames) + raw[note + 12 :], tmp_path)
    assert abs(len(found) - len(SOUND)) <= 2 * 1152


def test_an_mp3_of_fewer_frames_than_it_says_is_cut_off(tmp_path):
    raw, note, _ = mp3()
    frames = struct.unpack_from(">I", raw, note + 8)[0]
    for broken in (raw[: len(raw) // 2], raw[: note + 8] + struct.pack(">I", 2 * frames) + raw[note + 12 :]):
        for read in (read_header, lambda source: read_samples(source, RATE)):
            with pytest.raises(ValueError, match=r"cut off: \d+ samples announced, \d+ found"):
                read(broken)


def test_mp3_files_one_after_another(tmp_path):
    raw, note, size = mp3()
    whole = read_samples(raw, RATE)
    for joined in (raw + raw, ID3 + raw + ID3V1 + ID3 + raw):
        assert np.array_equal(both(joined, tmp_path), np.concatenate([whole, whole]))
    headless = both(raw + raw[size:], tmp_path)
    assert np.array_equal(headless, np.concatenate([whole, read_samples(raw[size:], RATE)]))
    frames = struct.unpack_from(">I", raw, note + 8)[0] // 2  # says half of what there is
    assert len(both(raw[: note + 8] + struct.pack(">I", frames) + raw[note + 12 :], tmp_path)) > 0.95 * len(whole)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_streams_one_after_another(tmp_path, subtype):
    parts = [encoded("OGG", SOUND[:count], subtype=subtype) for count in (9000, 5000, 16000)]
    found = both(b"".join(parts), tmp_path)
    assert np.array_equal(found, np.concatenate([read_samples(part, RATE) for part in parts]))
    assert len(found) == 30000
    with pytest.raises(ValueError, match=r"cut off: the last page is not whole|file is malformed"):
        read_samples(b"".join(parts)[:-10], RATE)


def test_ogg_streams_of_several_rates(tmp_path):
    raw = encoded("OGG", SOUND[:8000]) + encoded("OGG", SOUND[:8000], 8000, stereo=True)
    assert read_header(raw) == (RATE, 24000, 1)
    assert len(both(raw, tmp_path)) == 24000


def of_unknown_length(flac):
    """As ffmpeg writes to a pipe: no number of samples, no checksum of them."""
    raw = bytearray(flac)
    raw[21] &= 0xF0
    raw[22:42] = bytes(20)
    return bytes(raw)


@pytest.mark.parametrize("stereo", [False, True])
def test_a_flac_of_unknown_length(tmp_path, stereo, monkeypatch):
    raw = encoded("FLAC", stereo=stereo)
    whole = read_samples(raw, RATE)
    for block in (1 << 22, 1000):  # as for a file that is longer than a block
        monkeypatch.setattr("lambda_seq.inference.clips.BLOCK", block)
        assert np.array_equal(both(of_unknown_length(raw), tmp_path), whole)
        assert np.array_equal(both(raw, tmp_path), whole)
    for read in (read_header, lambda source: read_samples(source, RATE)):
        with pytest.raises(ValueError, match="damaged or cut off"):
            read(of_unknown_length(raw)[:20000])


def test_what_follows_a_flac_is_not_decoded(tmp_path):
    raw = encoded("FLAC")
    assert np.array_equal(both(raw + ID3V1, tmp_path), read_samples(raw, RATE))


@pytest.mark.parametrize("kind", ["OGG", "MP3", "WAV", "FLAC"])
def test_blocks_are_the_file(kind, monkeypatch):
    raw = encoded(kind)
    whole = read_samples(raw, RATE)
    monkeypatch.setattr("lambda_seq.inference.clips.BLOCK", 999)
    assert np.array_equal(read_samples(raw, RATE), whole)


def sized(riff, data, kind="WAV"):
    raw = bytearray(encoded(kind))
    place = raw.index(b"data") + 4
    raw[4:8], raw[place : place + 4] = struct.pack("<I", riff), struct.pack("<I", data)
    return bytes(raw)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg to a pipe
        (0x7FFFF024, 0x7FFFF000),  # sox to a pipe
        (0, 0),  # a recorder that was killed
        (36, 0),
        (0xFFFFFFFF, 0),
        (0, 64000),
    ],
)
def test_a_wav_whose_sizes_nobody_filled_in(tmp_path, kind, riff, data):
    assert np.array_equal(both(sized(riff, data, kind), tmp_path), read_samples(encoded(kind), RATE))


def test_a_wav_of_other_chunks_has_no_samples():
    raw = encoded("WAV", np.zeros(0)) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    raw = raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:]
    with pytest.raises(ValueError, match="holds no samples"):
        read_header(raw)


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [
        ("PCM_U8", 1 / 127),
        ("PCM_16", 1 / 32767),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-6),
        ("FLOAT", 1e-7),
        ("DOUBLE", 1e-7),
        ("ULAW", 0.03),
        ("ALAW", 0.03),
        ("IMA_ADPCM", 0.5),
        ("GSM610", 0.9),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 6])  # as many as the codec has
def test_wav_samples_of_all_kinds(tmp_path, subtype, tolerance, channels):
    channels = min(channels, {"GSM610": 1, "IMA_ADPCM": 2}.get(subtype, channels))
    samples = np.clip(SOUND, -0.9, 0.9)
    stream = io.BytesIO()
    levels = np.linspace(0.5, 1.5, channels) if channels > 1 else np.ones(1)  # whose mean is 1
    soundfile.write(stream, samples[:, None] * levels / 1.5, RATE, format="WAV", subtype=subtype)
    found = both(stream.getvalue(), tmp_path)
    assert np.abs(found[: len(samples)] - samples / 1.5).max() < tolerance
