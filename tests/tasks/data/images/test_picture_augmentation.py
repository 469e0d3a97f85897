"""Random changes of batches of pictures."""

import pytest
import torch
from small_data import image_folder

from lambda_seq.tasks.data import ImageData
from lambda_seq.tasks.data.images.augmentation import POLICIES, PictureAugmentation


def batch(channels=3, size=24, count=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"crop_scale": (0.3, 1.0)},
        {"policy": "randaugment", "layers": 3, "magnitude": 15},
        {"policy": "trivialaugment"},
        {"erasing": 1.0},
    ],
)
def test_changes_depend_on_the_seed_alone(channels, options):
    augment, pixels = PictureAugmentation(**options), batch(channels)
    before = torch.random.get_rng_state()
    for seed in range(20):  # every kind of change, sooner or later
        changed = augment(pixels, (24, 24), [seed])
        assert changed.shape == pixels.shape
        assert changed.dtype == torch.uint8
    assert not torch.equal(changed, pixels)
    assert torch.equal(changed, augment(pixels, (24, 24), [19]))
    assert not torch.equal(changed, augment(pixels, (24, 24), [18]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(pixels, batch(channels))


def test_off_by_default():
    assert not PictureAugmentation()
    assert PictureAugmentation(erasing=0.1)


def test_a_crop_resizes_to_the_size_asked_for_and_keeps_the_whole_at_scale_one():
    augment = PictureAugmentation(crop_scale=(0.1, 1.0))
    assert augment(batch(size=32), (28, 20), [0]).shape == (16, 3, 28, 20)
    flat = torch.full((4, 1, 10, 10), 77, dtype=torch.uint8)
    assert (augment(flat, (8, 8), [0]) == 77).all()


def test_erasing_paints_one_rectangle_with_grey():
    pixels = torch.full((32, 1, 20, 20), 255, dtype=torch.uint8)
    changed = PictureAugmentation(erasing=1.0, grey=0.4)(pixels, (20, 20), [0])[:, 0]
    painted = changed != 255
    assert set(changed[painted].tolist()) == {102}
    assert (painted.sum((1, 2)) == painted.any(2).sum(1) * painted.any(1).sum(1)).all()
    parts = painted.float().mean((1, 2))
    assert parts.min() > 0
    assert parts.max() < 0.45
    some = PictureAugmentation(erasing=0.5)(pixels, (20, 20), [0])[:, 0] != 255
    assert 4 < some.any(2).any(1).sum() < 28


def test_a_batch_gets_several_kinds_of_changes():
    pixels = batch(count=1).expand(64, -1, -1, -1).contiguous()
    changed = PictureAugmentation(policy="randaugment")(pixels, (24, 24), [1])
    assert len({picture.numpy().tobytes() for picture in changed}) >= 6


def smooth(channels=3, count=64, size=32):
    """Pictures of soft patches, in which small shifts change little and large ones much."""
    patches = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(patches, size=size, mode="bicubic").clamp(0, 1)
    return (x * 255).round().to(torch.uint8)


def change(pixels, seeds=40, **options):
    """The mean difference between pictures and changed ones."""
    augment = PictureAugmentation(**options)
    size = tuple(pixels.shape[2:])
    found = [(augment(pixels, size, [seed]).float() - pixels.float()).abs().mean() for seed in range(seeds)]
    return float(torch.stack(found).mean())


@pytest.mark.parametrize(
    ("option", "values", "others"),
    [
        ("magnitude", (1, 5, 10, 15, 20, 25, 29), {"policy": "randaugment", "layers": 1}),
        ("layers", (1, 2, 4), {"policy": "randaugment"}),
        ("erasing", (0.1, 0.3, 0.6, 1.0), {}),
        ("crop_scale", ((0.9, 0.9), (0.6, 0.6), (0.3, 0.3), (0.1, 0.1)), {}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_greater_strength_changes_more(option, values, others, channels):
    pixels = smooth(channels)
    changes = [change(pixels, **others, **{option: value}) for value in values]
    assert changes == sorted(changes)
    assert changes[-1] > 1.5 * changes[0] > 0


def test_trivialaugment_destroys_no_picture():
    """No strength leaves a picture of one value, as posterising to no bits would."""
    pixels = smooth()
    augment = PictureAugmentation(policy="trivialaugment")
    for seed in range(60):
        changed = augment(pixels, (32, 32), [seed])
        assert (changed.flatten(1).amax(1) > changed.flatten(1).amin(1)).all()


def test_fewer_pictures_than_groups():
    assert PictureAugmentation(policy="randaugment")(batch(count=3), (24, 24), [1]).shape == (3, 3, 24, 24)


class Trainer:
    """As much of one as the data module asks."""

    distributed_sampler_kwargs, current_epoch, training = None, 0, True

    class fit_loop:  # noqa: N801
        class epoch_loop:  # noqa: N801
            class batch_progress:  # noqa: N801
                class current:  # noqa: N801
                    ready = 0


@pytest.mark.parametrize("sequence", [False, True])
def test_training_batches_are_cropped_from_larger_ones_and_others_are_not(tmp_path, sequence):
    folder = image_folder(tmp_path / "pictures", {"train": 8, "test": 2}, size=(21, 14))
    data = ImageData(str(folder), batch_size=4, crop_scale=(0.5, 1.0), as_sequence=sequence)
    read, whole = next(iter(data.train_dataloader())), next(iter(data.test_dataloader()))
    assert read["x"].shape == ((4, 24 * 16, 3) if sequence else (4, 3, 24, 16))
    shape = (4, 21 * 14, 3) if sequence else (4, 3, 21, 14)
    assert whole["x"].shape == shape
    data.trainer = Trainer()
    changed = data.on_after_batch_transfer(read, 0)
    assert changed["x"].shape == shape
    assert changed["label"] is read["label"]
    data.trainer.training = False
    assert data.on_after_batch_transfer(whole, 0) is whole
    if sequence:  # the pixels are those of the picture, in reading order
        data.trainer.training = True
        picture = ImageData(str(folder), batch_size=4, crop_scale=(0.5, 1.0))
        picture.trainer = data.trainer
        loader = picture.train_dataloader()
        loader.sampler.set_epoch(0)
        expected = picture.on_after_batch_transfer(next(iter(loader)), 0)
        assert torch.equal(changed["x"], expected["x"].flatten(2).mT)


def test_sizes_that_pictures_are_read_at(tmp_path):
    folder = image_folder(tmp_path / "pictures", {"train": 8}, size=(21, 14))
    data = ImageData(str(folder), batch_size=4, crop_scale=(0.5, 1.0), read_size=30, image_size=16)
    assert next(iter(data.train_dataloader()))["x"].shape == (4, 3, 30, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "randaugmint"}, "augment='randaugmint': expected one of 'none', 'randaugment', 'trivialaugment'"),
        ({"augment_magnitude": 30}, "augment_magnitude=30"),
        ({"augment_layers": 0}, "augment_layers=0"),
        ({"erasing": 1.5}, "erasing=1.5"),
        ({"crop_scale": (0.0, 1.0)}, r"crop_scale=\[0.0, 1.0\]"),
        ({"crop_scale": (0.5, 0.2)}, r"crop_scale=\[0.5, 0.2\]"),
        ({"read_size": 30}, "read_size=30 without crop_scale"),
        ({"read_size": 0, "crop_scale": (0.5, 1.0)}, "read_size=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImageData("anywhere", **options)


def test_the_policies_are_documented():
    for name in POLICIES[1:]:
        assert name in ImageData.__doc__
