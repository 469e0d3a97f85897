"""Random changes of clips."""

import numpy as np
import pytest

from lambda_seq.inference.clips import cropped
from lambda_seq.tasks.data.audio.augmentation import WaveformAugmentation, equalized, shifted

RATE = 8000
ALL = WaveformAugmentation(speed=0.1, equalizer=3, shift=0.01, gap=0.05, noise=(10, 40), gain=6, polarity=True)


def tone(hertz=500, count=4000):
    return np.sin(2 * np.pi * hertz * np.arange(count) / RATE).astype(np.float32)


def draw(augmentation, samples, seed=0):
    return augmentation(samples, RATE, np.random.default_rng(seed))


def pitch(samples):
    return np.fft.rfft(samples * np.hanning(len(samples))).__abs__().argmax() * RATE / len(samples)


def decibels(samples):
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_nothing_is_changed_unasked():
    samples = tone()
    assert np.array_equal(draw(WaveformAugmentation(), samples), samples)


def test_the_same_draw_gives_the_same_clip_and_leaves_the_original():
    samples = tone()
    first = draw(ALL, samples)
    assert first.dtype == np.float32
    assert np.array_equal(draw(ALL, samples), first)
    assert not np.array_equal(draw(ALL, samples, 1), first)
    assert np.array_equal(samples, tone())


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("level", [0, 1])
def test_the_shortest_clips_and_silence_survive(count, level):
    for seed in range(20):
        changed = draw(ALL, np.full(count, level, np.float32), seed)
        assert len(changed) >= 1
        assert np.isfinite(changed).all()
        assert level or not changed.any()


def test_speed_changes_length_and_pitch_together():
    factors = []
    for seed in range(50):
        changed = draw(WaveformAugmentation(speed=0.2), tone(), seed)
        factors.append(4000 / len(changed))
        assert pitch(changed) == pytest.approx(500 * factors[-1], rel=0.01)
    assert 1 / 1.21 < min(factors) < 0.9
    assert 1.1 < max(factors) < 1.21


def test_an_equalizer_with_equal_gains_is_a_gain():
    samples = np.random.default_rng(0).standard_normal(3001).astype(np.float32)
    assert np.allclose(equalized(samples, RATE, np.full(8, 20.0)), 10 * samples, atol=1e-4)
    assert np.allclose(equalized(samples, RATE, np.zeros(8)), samples, atol=1e-5)


def test_an_equalizer_changes_the_bands_it_is_told_to():
    gains = np.zeros(8)
    gains[0] = -40  # below about 110 hertz, where it has gone back to 0
    assert decibels(equalized(tone(60), RATE, gains)) < decibels(tone(60)) - 20
    assert decibels(equalized(tone(500), RATE, gains)) == pytest.approx(decibels(tone(500)), abs=0.2)
    assert np.ptp([decibels(draw(WaveformAugmentation(equalizer=6), tone(), seed)) for seed in range(20)]) > 3


@pytest.mark.parametrize("places", [0, 3, -3, 9, 10, -10, 30, -30])
def test_shifts(places):
    samples = np.arange(1, 11, dtype=np.float32)
    moved = shifted(samples, places)
    expected = [samples[place - places] if 0 <= place - places < 10 else 0 for place in range(10)]
    assert moved.tolist() == expected


def test_a_shift_is_limited():
    impulse = np.zeros(1000, np.float32)
    impulse[500] = 1
    places = [draw(WaveformAugmentation(shift=0.02), impulse, seed).argmax() - 500 for seed in range(100)]
    assert -160 <= min(places) < -100
    assert 100 < max(places) <= 160


def test_a_gap_is_one_stretch_of_silence():
    lengths = []
    for seed in range(50):
        silent = np.flatnonzero(draw(WaveformAugmentation(gap=0.1), np.ones(4000, np.float32), seed) == 0)
        assert len(silent) == 0 or np.ptp(silent) == len(silent) - 1
        lengths.append(len(silent))
    assert 600 < max(lengths) <= 800
    assert min(lengths) < 200


@pytest.mark.parametrize("count", [3, 24, 45, 180, 360])  # at 8 kHz up to 45 milliseconds
@pytest.mark.parametrize("options", [{"shift": 0.05}, {"gap": 0.2}, {"shift": 5.0, "gap": 5.0}])
def test_short_clips_lose_at_most_a_quarter_to_each(count, options):
    for seed in range(60):
        left = np.count_nonzero(draw(WaveformAugmentation(**options), np.ones(count, np.float32), seed))
        assert left >= count * (1 - len(options) / 4) - 1


def test_what_is_kept_of_a_clip_is_its_length():
    augmentation = WaveformAugmentation(gap=10)
    lengths = []
    for seed in range(50):
        changed = augmentation(np.ones(8000, np.float32), RATE, np.random.default_rng(seed), 400)
        lengths.append(8000 - np.count_nonzero(changed))
    assert 80 < max(lengths) <= 100


def test_options_that_are_bounded_are_counted():
    seconds = np.array([0.003, 0.045, 0.1, 0.2, 1.0])
    assert WaveformAugmentation(shift=0.05, gap=0.01).bounded(seconds) == {"shift": 3, "gap": 1}
    assert WaveformAugmentation(shift=0.0005, speed=0.1).bounded(seconds) == {}


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("shift", (0.001, 0.01, 0.05, 0.12)),
        ("gap", (0.001, 0.01, 0.05, 0.12)),
        ("equalizer", (1, 3, 6, 12)),
        ("noise", ((40, 40), (20, 20), (5, 5), (-5, -5))),
        ("gain", (1, 3, 6, 12)),
    ],
)
def test_a_greater_strength_changes_more(option, values):
    samples = np.random.default_rng(0).standard_normal(4000).cumsum().astype(np.float32)
    samples = (samples - samples.mean()) / samples.std()
    changes = []
    for value in values:
        found = [draw(WaveformAugmentation(**{option: value}), samples, seed) - samples for seed in range(60)]
        changes.append(float(np.mean([np.sqrt(np.mean(np.square(difference))) for difference in found])))
    assert changes == sorted(changes)
    assert changes[-1] > 2 * changes[0] > 0


def test_a_greater_speed_changes_lengths_more():
    spreads = []
    for speed in (0.05, 0.1, 0.3, 0.8):
        lengths = [len(draw(WaveformAugmentation(speed=speed), tone(), seed)) for seed in range(60)]
        spreads.append(np.std(lengths))
    assert spreads == sorted(spreads)


@pytest.mark.parametrize("ratio", [0.0, 20.0])
def test_noise_has_the_ratio_it_is_given(ratio):
    samples = 0.01 * tone()
    noise = draw(WaveformAugmentation(noise=(ratio, ratio)), samples) - samples
    assert decibels(samples) - decibels(noise) == pytest.approx(ratio, abs=0.5)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.1


def test_gain_and_polarity():
    changes = [decibels(draw(WaveformAugmentation(gain=6), tone(), seed)) - decibels(tone()) for seed in range(50)]
    assert -6 <= min(changes) < -4
    assert 4 < max(changes) <= 6
    signs = [draw(WaveformAugmentation(polarity=True), np.ones(1, np.float32), seed)[0] for seed in range(50)]
    assert 10 < signs.count(-1) < 40
    assert signs.count(-1) + signs.count(1) == 50


def test_crops():
    samples = np.arange(10)
    assert cropped(samples, 10) is samples
    assert cropped(samples, 4).tolist() == [3, 4, 5, 6]
    begins = {int(cropped(samples, 4, np.random.default_rng(seed))[0]) for seed in range(100)}
    assert begins == set(range(7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1.0}, "augmentation.speed=1.0"),
        ({"shift": -0.1}, "augmentation.shift=-0.1"),
        ({"equalizer": float("nan")}, "augmentation.equalizer=nan"),
        ({"gap": float("inf")}, "augmentation.gap=inf"),
        ({"gain": -1}, "augmentation.gain=-1"),
        ({"noise": (40, 10)}, r"augmentation.noise=\[40, 10\]: expected \[lowest, highest\]"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        WaveformAugmentation(**options)
