import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer1d, LambdaLayer2d, create_model
from lambda_seq.layers import MaskedBatchNorm, make_norm, synchronise
from lambda_seq.layers.norm import _normalised, normalise_pictures


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_are_those_of_automatic_differentiation(dtype, affine):
    norm = MaskedBatchNorm(6, affine=affine)
    x = (torch.randn(3, 50, 6) * 2 + 5).to(dtype).requires_grad_()
    mask, g = torch.rand(3, 50) > 0.3, torch.randn(3, 50, 6).to(dtype)  # outputs at padding have gradients, too
    inputs = [x, *norm.parameters()]
    for parameter in inputs[1:]:
        nn.init.normal_(parameter)
    y, expected = norm(x, mask), _normalised(x, mask, norm.weight, norm.bias, norm.eps)[0]
    torch.testing.assert_close(y, expected)
    found, expected = (torch.autograd.grad(one, inputs, g) for one in (y, expected))
    for one, other, given in zip(found, expected, inputs, strict=True):
        assert one.dtype == given.dtype
        torch.testing.assert_close(one, other, **({"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {}))


def test_gradients_of_gradients():
    norm, mask = MaskedBatchNorm(2).double(), torch.tensor([[True, True, False], [True, False, True]])
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def function(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x, mask))

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


def test_gradients_of_gradients_of_weights_alone():
    norm, mask = MaskedBatchNorm(2), torch.tensor([[True, True, False]])
    found = torch.autograd.grad(norm(torch.randn(1, 3, 2), mask).square().sum(), norm.weight, create_graph=True)[0]
    assert torch.autograd.grad(found.sum(), norm.weight)[0].abs().sum() > 0  # the input has no gradient


def test_padding_costs_no_memory_until_the_backward_pass():
    kept = []
    x, mask = torch.randn(2, 50, 6, requires_grad=True), torch.rand(2, 50) > 0.3
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        MaskedBatchNorm(6)(x, mask)
    assert [one.data_ptr() for one in kept if one.numel() >= x.numel()] == [x.data_ptr()]


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


# One value per channel


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
def test_a_single_position_is_its_own_mean(shape, options, synced):
    plain, masked = (MaskedBatchNorm(6, **options) for _ in range(2))
    for norm in (plain, masked):
        if options.get("affine", True):
            nn.init.constant_(norm.bias, 0.5)
        if norm.running_mean is not None:
            nn.init.constant_(norm.running_mean, 2.0)
        synchronise(norm) if synced else None
    x = torch.randn(*shape, 6, requires_grad=True)
    first, second = plain(x), masked(x, torch.ones(shape, dtype=torch.bool))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, torch.full_like(first, 0.5 if options.get("affine", True) else 0.0))
    first.square().sum().backward()
    assert x.grad.isfinite().all()
    for name, buffer in plain.state_dict().items():
        assert torch.equal(buffer, masked.state_dict()[name])
        assert buffer.isfinite().all(), name
    if plain.running_mean is not None:
        share = 0.1 if options.get("momentum", 0.1) else 1.0
        torch.testing.assert_close(plain.running_mean, (1 - share) * 2.0 + share * x.detach().flatten())
        assert torch.equal(plain.running_var, torch.ones(6))  # one value says nothing of a variance


@pytest.mark.parametrize("shape", [(0, 5), (0,), (3, 0)])
def test_no_position_at_all_teaches_nothing(shape):
    norm = MaskedBatchNorm(6)
    assert norm(torch.randn(*shape, 6)).shape == (*shape, 6)
    assert torch.equal(norm.running_mean, torch.zeros(6))
    assert torch.equal(norm.running_var, torch.ones(6))


def test_one_real_position_of_many():
    norm, x = MaskedBatchNorm(6), torch.randn(2, 4, 6)
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[1, 2] = True
    assert norm(x, mask).isfinite().all()
    torch.testing.assert_close(norm.running_mean, 0.1 * x[1, 2])
    assert torch.equal(norm.running_var, torch.ones(6))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (LambdaLayer1d(8, heads=2, scope=5), (1, 1, 8)),
        (LambdaLayer2d(8, heads=2, scope=5), (1, 8, 1, 1)),
        (create_model("lambda_encoder_tiny", stem="features", block_norm="batch"), (1, 1, 1)),
        (create_model("lambda_encoder_tiny", stem="waveform", block_norm="batch"), (1, 5)),
        (create_model("lambda_resnet_tiny"), (1, 3, 1, 1)),
        (create_model("lambda_resnet_tiny", placement="C", se=0.5, stem="imagenet"), (1, 3, 2, 2)),
        (create_model("lambda_resnet_tiny", stem="resnet_d"), (1, 3, 4, 4)),
        (create_model("lambda_resnet26t", width=8), (1, 3, 5, 3)),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, nn.Module) else str(given),
)
def test_networks_train_on_one_value_per_channel(model, shape):
    x = torch.randn(shape)
    for _ in range(2):
        model.train()(x).sum().backward()
    assert all(buffer.isfinite().all() for buffer in model.buffers())
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())
    assert model.eval()(x).isfinite().all()
    assert any(int(buffer) == 2 for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked"))


def test_pictures_as_torch_normalises_them():
    ours, theirs = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
    for shape in ((2, 6, 3, 3), (1, 6, 1, 2), (2, 6, 1, 1)):
        x = torch.randn(shape)
        assert torch.equal(normalise_pictures(ours, x), theirs(x))
    for name, buffer in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], buffer)
