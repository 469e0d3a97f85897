"""Mixed pictures and their targets."""

import pytest
import torch

from tasks.classification import Classification
from tasks.mixing import Mixing, rectangles

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
    mixed, target = Mixing(mixup=1.0)(x, labels, 3)
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
        mixed, target = Mixing(cutmix=1.0)(x, labels, 3)
        left = (mixed[:, 0] == x[:, 0]).float().mean((1, 2))
        assert ((mixed == x) | (mixed == x.roll(1, 0))).all()
        assert torch.allclose(target.gather(1, labels[:, None])[:, 0], left)
        assert torch.allclose(target.sum(1), torch.ones(6))
        seen += left.tolist()
    assert min(seen) < 0.4
    assert max(seen) > 0.9


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
        mixed, _ = Mixing(1.0, 1.0)(x, labels, 3)
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


def test_a_batch_of_one_stays_itself():
    x, labels = plain(1)
    mixed, target = Mixing(1.0, 1.0)(x, labels, 3)
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
    mixed, target = Mixing(0.5)(mixing.inputs(batch)[0], batch["label"], 3)
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
def test_only_pictures_are_mixed(options):
    facts = {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 9}}
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*is for pictures, and lambda_encoder_tiny takes"):
        Classification("lambda_encoder_tiny", facts=facts, **options)


def test_momentum_without_batch_norms():
    facts = {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 9}}
    with pytest.raises(ValueError, match=r"norm_momentum=0.1: the network has no batch norms"):
        Classification("lambda_encoder_tiny", {"norm": "rms", "lambda_norm": "rms"}, facts=facts, norm_momentum=0.1)
