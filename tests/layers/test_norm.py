import pytest
import torch
from torch import nn

from lambda_seq.layers import MaskedBatchNorm, make_norm


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair(**options):
    ours, theirs = MaskedBatchNorm(6, **options).double(), nn.BatchNorm1d(6, **options).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_torch_on_the_real_positions(options, masked):
    ours, theirs = pair(**options)
    for _ in range(3):
        x = torch.randn(4, 9, 6, dtype=torch.float64, requires_grad=True)
        mask = torch.rand(4, 9) > 0.4
        found = ours(x, mask)[mask] if masked else ours(x)
        expected = theirs(x[mask]) if masked else theirs(x.flatten(0, 1)).view_as(x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found.pow(3).sum(), x), torch.autograd.grad(expected.pow(3).sum(), x)
        )
    for name, buffer in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x, mask)[mask], theirs(x[mask]))


def test_a_batch_without_real_positions_teaches_nothing():
    norm = MaskedBatchNorm(6)
    before = {name: buffer.clone() for name, buffer in norm.state_dict().items()}
    output = norm(torch.randn(2, 3, 6), torch.zeros(2, 3, dtype=torch.bool))
    assert output.isfinite().all()
    assert torch.equal(norm.running_mean, before["running_mean"])
    assert torch.equal(norm.running_var, before["running_var"])


def test_what_stands_at_masked_positions_does_not_matter():
    norm = MaskedBatchNorm(6)
    x, mask = torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)
    mask[:, 3:] = False
    first = norm(x, mask)[mask]
    x[:, 3:] = float("nan")
    assert torch.equal(norm(x, mask)[mask], first)


def test_images_too():
    norm = MaskedBatchNorm(6)
    assert norm(torch.randn(2, 5, 4, 6), torch.rand(2, 5, 4) > 0.5).shape == (2, 5, 4, 6)


@pytest.mark.parametrize("kind", ["batch", "layer", "rms", "none"])
def test_all_norms_take_a_mask(kind):
    x, mask = torch.randn(2, 5, 6), torch.rand(2, 5) > 0.2
    assert make_norm(kind, 6)(x, mask).shape == x.shape
    assert make_norm(kind, 6)(x).shape == x.shape


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm='group': expected one of 'batch', 'layer', 'rms', 'none'"):
        make_norm("group", 6)
