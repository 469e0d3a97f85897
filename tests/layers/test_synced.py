"""Batch norms of several processes are those of one that has all rows."""

import pytest
import torch
from torch import distributed, multiprocessing, nn

from lambda_seq.layers import LambdaLayer1d, MaskedBatchNorm, separate, synchronise

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


def worker(rank, folder):
    distributed.init_process_group("gloo", f"file://{folder}/meeting", world_size=PROCESSES, rank=rank)
    x, mask, gradient = parts()
    rows = slice(2 * rank, 2 * rank + 2)
    masked, pictures = map(synchronise, norms())
    found = {
        "masked": answers(masked, x[rows], gradient[rows], mask[rows]),
        "whole": answers(masked, x[rows], gradient[rows]),
        "pictures": answers(pictures, picture(x)[rows], picture(gradient)[rows]),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_forward_gradients_and_running_statistics(tmp_path):
    multiprocessing.spawn(worker, (tmp_path,), nprocs=PROCESSES)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
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
