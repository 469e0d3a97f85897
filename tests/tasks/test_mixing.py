"""Mixed pictures and their targets."""

import inspect

import pytest
import torch
from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.mixing import Mixing, rectangles

FACTS = {
    "labels": ["a", "b", "c"],
    "input": "image",
    "options": {"num_classes": 3, "in_channels": 1, "image_size": [8, 8]},
    "mean": [100.0],
    "std": [50.0],
}
TINY = {"blocks": [1], "width": 4, "heads": 2, "scope": 3}


def plain(count=6, height=9, width=12):
    """Pictures of one colour each, which tells them apart."""
    x = torch.arange(1.0, count + 1)[:, None, None, None].expand(count, 2, height, width).contiguous()
    return x, torch.arange(count) % 3


def test_mixup_mixes_pictures_and_targets_in_the_same_shares():
    torch.manual_seed(0)
    x, labels = plain()
    mixed, target, _ = Mixing(mixup=1.0)(x, labels, 3)
    own, other = x[:, 0, 0, 0], x.roll(1, 0)[:, 0, 0, 0]
    share = (mixed[:, 0, 0, 0] - other) / (own - other)
    assert ((share > 0) & (share < 1)).all()
    assert len(share.unique()) == len(x)
    assert torch.allclose(mixed, mixed[:, :1, :1, :1].expand_as(x))
    for row in range(6):
        assert target[row, labels[row]] == pytest.approx(share[row].item(), abs=1e-5)
        assert target[row, labels[row - 1]] == pytest.approx(1 - share[row].item(), abs=1e-5)


def test_cutmix_targets_are_what_is_left_of_each_picture():
    x, labels = plain()
    seen = []
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, target, _ = Mixing(cutmix=1.0)(x, labels, 3)
        left = (mixed[:, 0] == x[:, 0]).float().mean((1, 2))
        assert ((mixed == x) | (mixed == x.roll(1, 0))).all()
        assert torch.allclose(target.gather(1, labels[:, None])[:, 0], left)
        assert torch.allclose(target.sum(1), torch.ones(6))
        seen += left.tolist()
    assert min(seen) < 0.4
    assert max(seen) > 0.9


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_greater_alpha_mixes_more(kind):
    x, labels = plain(600)
    mixed = []
    for alpha in (0.05, 0.2, 1.0, 5.0):
        torch.manual_seed(0)
        _, target, _ = Mixing(**{kind: alpha})(x, labels, 3)
        mixed.append(float(1 - target.amax(1).mean()))
    assert mixed == sorted(mixed)
    assert mixed[-1] > 1.5 * mixed[0] > 0


def test_a_rectangle_is_one_and_covers_its_part():
    torch.manual_seed(0)
    masks = rectangles(torch.full((500,), 0.25), 20, 30)
    rows, columns = masks.any(2).sum(1), masks.any(1).sum(1)
    assert (masks.sum((1, 2)) == rows * columns).all()
    assert rows.max() == 10
    assert columns.max() == 15
    assert masks.float().mean((1, 2)).mean() < 0.25  # at borders less
    assert not rectangles(torch.zeros(5), 4, 4).any()
    assert rectangles(torch.full((1,), 100.0), 4, 4).all()


def test_with_both_each_batch_gets_one():
    x, labels = plain()
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, _, _ = Mixing(1.0, 1.0)(x, labels, 3)
        kinds.add(bool(((mixed == x) | (mixed == x.roll(1, 0))).all()))
    assert kinds == {True, False}


def test_the_same_seed_mixes_the_same_and_nothing_is_changed_in_place():
    x, labels = plain()
    for options in ({"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}):
        results = []
        for _ in range(2):
            torch.manual_seed(3)
            results.append(Mixing(**options)(x, labels, 3))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(x, plain()[0])


def test_kornia_mixes_otherwise():
    """Should this fail, kornia's classes may take the place of `Mixing`."""
    torch.manual_seed(0)
    x, labels = torch.rand(64, 1, 4, 4), torch.arange(64)
    assert "alpha" not in inspect.signature(RandomMixUpV2).parameters
    _, mixed = RandomMixUpV2(data_keys=["input", "class"])(x, labels)
    assert mixed.shape == (64, 3)  # class, other class and λ
    shares = [RandomMixUpV2(data_keys=["input", "class"])(x, labels)[1][:, 2] for _ in range(100)]
    assert abs(torch.cat(shares).var() - 1 / 12) < 0.003  # even; of Beta(0.2, 0.2) it is 0.18
    cutmix = RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)
    targets = torch.cat([cutmix(x, labels)[1] for _ in range(20)])
    assert targets.shape == (20, 64, 3)
    assert (targets[..., 0] == targets[..., 1]).any()  # a picture that is mixed with itself


def test_a_batch_of_one_stays_itself():
    x, labels = plain(1)
    mixed, target, _ = Mixing(1.0, 1.0)(x, labels, 3)
    assert torch.allclose(mixed, x)
    assert torch.allclose(target, torch.tensor([[1.0, 0.0, 0.0]]))


def task(**options):
    found = Classification("lambda_resnet_tiny", TINY, facts=FACTS, **options).train()
    found.log = found.log_dict = lambda *given, **named: None
    return found


def pictures():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return {"x": x, "label": torch.tensor([0, 1, 2, 0]), "id": list("abcd")}


def test_the_loss_is_against_the_mixed_targets_and_metrics_count_the_greater_share():
    mixing = task(mixup=0.5, label_smoothing=0.1)
    batch = pictures()
    torch.manual_seed(1)
    loss = mixing.training_step(batch, 0)
    torch.manual_seed(1)
    mixed, target, _ = Mixing(0.5)(mixing.inputs(batch)[0], batch["label"], 3)
    logits = mixing.network(mixed)
    smooth = 0.9 * target + 0.1 / 3
    assert torch.allclose(loss, -(smooth * logits.log_softmax(-1)).sum(-1).mean())
    accuracy = (logits.argmax(-1) == target.argmax(-1)).float().mean()
    assert mixing.train_metrics.compute()["train/accuracy"] == pytest.approx(accuracy.item(), abs=1e-6)


def test_evaluation_mixes_nothing():
    mixing, still = task(cutmix=1.0).eval(), task().eval()
    still.load_state_dict(mixing.state_dict())
    assert torch.equal(mixing.validation_step(pictures(), 0)["probabilities"], still(pictures()).softmax(-1))


def test_channels_last_computes_the_same_under_the_same_names():
    plainly, last = task().eval(), task(channels_last=True).eval()
    last.load_state_dict(plainly.state_dict())
    last.setup("fit")
    assert last.network.stages[0][0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last(pictures()), plainly(pictures()), atol=1e-5)
    assert last.state_dict().keys() == plainly.state_dict().keys()


def test_norm_momentum():
    network = task(norm_momentum=0.01).network
    assert network.stages[0][0].norm1.momentum == 0.01
    assert network.stages[0][0].mix.layer.norm_query.momentum == 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": -0.1}, r"mixup=-0.1: expected the α of Beta"),
        ({"cutmix": float("inf")}, "cutmix=inf"),
        ({"norm_momentum": 0.0}, "norm_momentum=0.0: expected a part above 0"),
    ],
)
def test_bad_options_for_pictures(options, message):
    with pytest.raises(ValueError, match=message):
        task(**options)


@pytest.mark.parametrize("options", [{"mixup": 0.2}, {"cutmix": 1.0}, {"channels_last": True}])
def test_tokens_are_not_mixed(options):
    facts = {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 9}}
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*is for pictures.*, and lambda_encoder_tiny takes"):
        Classification("lambda_encoder_tiny", facts=facts, **options)


def test_sequences_are_mixed_as_if_zeros_followed():
    torch.manual_seed(0)
    lengths = torch.tensor([5, 2, 4])
    mask = torch.arange(5) < lengths[:, None]
    for channels in ((), (2,)):
        x = torch.randn(3, 5, *channels)
        real = mask.view(3, 5, *[1] * len(channels))
        mixed, target, either = Mixing(mixup=1.0)(x.masked_fill(~real, float("nan")), torch.arange(3), 3, mask)
        share = target.diagonal()
        padded = x * real
        for row in range(3):
            expected = share[row] * padded[row] + (1 - share[row]) * padded[row - 1]
            torch.testing.assert_close(mixed[row], expected)
            assert target[row, row - 1] == pytest.approx(1 - share[row].item(), abs=1e-6)
        assert either.sum(1).tolist() == [5, 5, 4]
    assert Mixing(mixup=1.0)(x, torch.arange(3), 3)[2] is None


@pytest.mark.parametrize(
    ("stem", "audio"),
    [("features", None), ("waveform", {"standardize": "clip"}), ("features", {"representation": "log_mel"})],
)
def test_a_training_step_on_mixed_sequences(stem, audio):
    """Samples are mixed once they are standardised, or frames, and padding changes nothing."""
    channels = 3 if audio is None else 8 if stem == "features" else 1
    facts = {"labels": ["a", "b", "c"], "input": stem, "options": {"num_classes": 3, "in_channels": channels}}
    if audio:
        sizes = {"sampling_rate": 4000, "max_length": 90, "n_mels": 8, "n_fft": 128, "hop_length": 10}
        facts |= {"audio": {"representation": "waveform", "standardize": "none"} | sizes | audio}
    options = {"stem": stem, "dim": 8, "depth": 1, "heads": 2, "norm": "rms", "scope": 3}
    options |= {"strides": [2]} if stem == "waveform" else {}
    torch.manual_seed(0)
    found = Classification("lambda_encoder", options, facts=facts, mixup=0.5).train()
    found.log = found.log_dict = lambda *given, **named: None
    x = torch.randn(4, 90) if audio else torch.randn(4, 90, 3)
    mask = torch.arange(90) < torch.tensor([90, 40, 60, 80])[:, None]
    batch = {"x": x, "mask": mask, "label": torch.tensor([0, 1, 2, 0]), "id": list("abcd")}
    torch.manual_seed(1)
    loss = found.training_step(batch, 0)
    torch.manual_seed(1)
    mixed, target, either = Mixing(0.5)(*_inputs_of(found, batch))
    expected = -(target * found.network(mixed, either).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(loss, expected)
    longer = {"x": torch.nn.functional.pad(x, (*[0, 0] * (x.ndim - 2), 0, 30), value=7.0)}
    longer["mask"] = torch.nn.functional.pad(mask, (0, 30))
    torch.manual_seed(1)
    torch.testing.assert_close(found.training_step(batch | longer, 0), loss)


def _inputs_of(found, batch):
    x, mask = found.inputs(batch)
    return x, batch["label"], 3, mask


def test_processes_that_share_sequences_agree_on_the_shares():
    x, seen = torch.randn(4, 6), []
    mixed, target, _ = Mixing(1.0)(x, torch.arange(4), 4, agreed=lambda share: seen.append(share) or share * 0 + 0.25)
    torch.testing.assert_close(mixed, 0.25 * x + 0.75 * x.roll(1, 0))
    assert torch.equal(target.diagonal(), torch.full((4,), 0.25))
    assert len(seen) == 1


def test_momentum_without_batch_norms():
    facts = {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 9}}
    with pytest.raises(ValueError, match=r"norm_momentum=0.1: the network has no batch norms"):
        Classification("lambda_encoder_tiny", {"block_norm": "rms", "norm": "rms"}, facts=facts, norm_momentum=0.1)
