"""Batch norms of several processes are those of one that has all rows."""

import copy

import pytest
import torch
from processes import run_together
from torch import distributed, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lambda_seq import create_model
from lambda_seq.layers import LambdaLayer1d, MaskedBatchNorm, separate, synchronise
from lambda_seq.models.sequence.blocks import LambdaMixing

PROCESSES = 2
LENGTHS = (3, 9, 5, 0)  # of the rows; the last process has one without a real position


def parts():
    """A batch of four rows, its mask, and what is to be the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(4, 9, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    return x, torch.arange(9) < torch.tensor(LENGTHS)[:, None], gradient


def norms():
    torch.manual_seed(0)
    masked, pictures = MaskedBatchNorm(6).double(), nn.BatchNorm2d(6).double()
    for parameter in (*masked.parameters(), *pictures.parameters()):
        nn.init.normal_(parameter)
    return masked, pictures


def answers(module, x, gradient, mask=None):
    """Output, gradients of input and parameters, and buffers."""
    x = x.clone().requires_grad_()
    y = module(x) if mask is None else module(x, mask)
    own = torch.autograd.grad((y * gradient).sum(), (x, *module.parameters()))
    return y.detach(), own[0], [part.clone() for part in own[1:]], [buffer.clone() for buffer in module.buffers()]


def picture(x):
    return x.view(4, 3, 3, 6).movedim(-1, 1)  # (B, C, H, W)


def worker():
    x, mask, gradient = parts()
    rank = distributed.get_rank()
    rows = slice(2 * rank, 2 * rank + 2)
    masked, pictures = map(synchronise, norms())
    return {
        "masked": answers(masked, x[rows], gradient[rows], mask[rows]),
        "whole": answers(masked, x[rows], gradient[rows]),
        "pictures": answers(pictures, picture(x)[rows], picture(gradient)[rows]),
    }


def test_forward_gradients_and_running_statistics():
    found = run_together(PROCESSES, worker)
    x, mask, gradient = parts()
    masked, pictures = norms()
    expected = {
        "masked": answers(masked, x, gradient, mask),
        "whole": answers(masked, x, gradient),
        "pictures": answers(pictures, picture(x), picture(gradient)),
    }
    for name, (y, own, weights, buffers) in expected.items():
        each = [part[name] for part in found]
        torch.testing.assert_close(torch.cat([part[0] for part in each]), y, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(torch.cat([part[1] for part in each]), own, atol=1e-12, rtol=1e-12)
        for index, weight in enumerate(weights):  # each process has the gradient of its own rows
            torch.testing.assert_close(sum(part[2][index] for part in each), weight, atol=1e-12, rtol=1e-12)
        for part in each:
            torch.testing.assert_close(part[3], buffers, atol=1e-12, rtol=1e-12)


def test_one_process_alone_computes_the_same_and_goes_back():
    layer = LambdaLayer1d(6, heads=2, scope=3).double()
    x, mask, _ = parts()
    kinds = [type(module) for module in layer.modules()]
    expected = layer(x, mask)
    before = layer.state_dict()
    synchronise(layer)
    assert [type(module) for module in layer.modules()] != kinds
    assert layer.state_dict().keys() == before.keys()
    torch.testing.assert_close(layer(x, mask), expected)
    torch.testing.assert_close(layer.eval()(x, mask), separate(layer)(x, mask))
    assert [type(module) for module in layer.modules()] == kinds


def test_an_unknown_batch_norm_is_named():
    with pytest.raises(TypeError, match="0 is a BatchNorm3d: expected MaskedBatchNorm, BatchNorm2d"):
        synchronise(nn.Sequential(nn.BatchNorm3d(2)))


# What torch's own conversion leaves of models


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (LambdaLayer1d(6, heads=2, scope=3), torch.randn(4, 9, 6)),
        (LambdaMixing(LambdaLayer1d(6, heads=2, scope=3)), torch.randn(4, 9, 6)),
        (create_model("lambda_encoder_tiny", block_norm="batch", strides=(2,)), torch.randint(257, (4, 9))),
        (create_model("lambda_encoder_tiny", block_norm="batch", stem="features"), torch.randn(4, 9, 1)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_torchs_conversion_keeps_masks(model, x):
    mask = torch.arange(9) < torch.tensor(LENGTHS)[:, None]
    expected = copy.deepcopy(model)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert not any(type(module) in (nn.SyncBatchNorm, MaskedBatchNorm) for module in converted.modules())
    assert converted.state_dict().keys() == expected.state_dict().keys()
    for _ in range(2):  # in training, and in evaluation with what it has learned
        found, wanted = converted(x, mask), expected(x, mask)
        real = mask if found.ndim == 3 and found.shape[1] == 9 else slice(None)
        torch.testing.assert_close(found[real], wanted[real])
        converted.eval(), expected.eval()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(converted.state_dict()[name], tensor)
    copy.deepcopy(converted)(x, mask)
    separate(converted)(x, mask)
    assert any(type(module) is MaskedBatchNorm for module in converted.modules())


def test_torchs_conversion_of_networks_for_pictures():
    model, x = create_model("lambda_resnet_tiny"), torch.randn(3, 3, 8, 8)
    expected = copy.deepcopy(model)(x)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    kinds = {type(module).__name__ for module in converted.modules()}
    assert {"SyncBatchNorm", "SyncedMaskedBatchNorm"} <= kinds
    torch.testing.assert_close(converted(x), expected)


def test_other_tools_for_norms():
    model = create_model("lambda_resnet_tiny").eval()
    x = torch.randn(2, 3, 8, 8)
    convolution, norm, _ = model.stem[0]
    fused = fuse_conv_bn_eval(convolution, norm)
    torch.testing.assert_close(fused(x), norm(convolution(x)))
    seen = []
    model.apply(lambda module: seen.append(module) if isinstance(module, nn.modules.batchnorm._BatchNorm) else None)
    assert any(isinstance(module, MaskedBatchNorm) for module in seen)
    torch.optim.swa_utils.update_bn([x, x + 1], model.train())
    assert all(int(module.num_batches_tracked) == 2 for module in seen)
