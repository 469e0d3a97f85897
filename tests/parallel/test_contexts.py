"""What modules ask of their sequence: alone they have all of it, and in chunks the answers are the same."""

import inspect

import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer1d, parallel
from lambda_seq.layers import UNSHARDED, SequenceContext
from lambda_seq.parallel import ShardedContext

SIZES = (4, 1, 7, 2)


def positions():
    return torch.randn(2, sum(SIZES), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Smoothed(nn.Module):
    """A module of somebody else that relates positions: a moving mean, less that of the sequence."""

    sequence: SequenceContext = UNSHARDED

    def __init__(self):
        super().__init__()
        self.layer = LambdaLayer1d(3, heads=1, dim_key=2, scope=3, norm="rms").double()

    def forward(self, x):
        mean = self.sequence.sum(x.sum(1)) / self.sequence.length(x)  # (B, C)
        nearby = self.sequence.extend(x, 2, 1, 1).unfold(1, 4, 1).mean(-1)  # (B, N, C)
        loudest = self.sequence.gather(x.amax(1)).amax(0)  # (B, C)
        return self.layer(nearby - mean[:, None] + loudest[:, None])


def smoothed(sizes):
    """What comes out, and its gradient, on this process."""
    torch.manual_seed(1)
    module, x = Smoothed(), positions()
    if sizes:
        mesh = parallel.make_mesh(len(sizes))
        parallel.parallelize(module, mesh)
        x = x.split(sizes, 1)[mesh.get_local_rank("sequence")]
        assert isinstance(module.sequence, ShardedContext)
        assert (module.sequence.size, module.sequence.rank) == (4, mesh.get_local_rank("sequence"))
    x = x.clone().requires_grad_()
    y = module(x)
    y.square().sum().backward()
    return y.detach(), x.grad


def test_alone_a_module_has_the_whole_sequence():
    x = positions()
    assert (UNSHARDED.size, UNSHARDED.rank, UNSHARDED.length(x)) == (1, 0, sum(SIZES))
    assert UNSHARDED.sum(x) is x
    assert torch.equal(UNSHARDED.gather(x), x[None])
    assert torch.equal(UNSHARDED.extend(x, 1, 2, 1)[:, 1:-2], x)


def test_any_module_that_asks_works_on_chunks(four):
    expected = smoothed(None)
    for index, whole in enumerate(expected):
        parts = [found[index] for found in four.run(smoothed, SIZES)]
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-10, atol=1e-10)


def test_chunks_answer_all_that_is_asked():
    """Each question that is not made of others; with the same arguments."""
    for name, question in vars(SequenceContext).items():
        if inspect.isfunction(question) and name != "length":
            answer = vars(ShardedContext)[name]
            assert list(inspect.signature(answer).parameters) == list(inspect.signature(question).parameters)


def chunks_for(length, multiple):
    mesh = parallel.make_mesh(4)
    module = parallel.parallelize(LambdaLayer1d(3, heads=1, dim_key=2, scope=3, norm="rms"), mesh)
    x = torch.arange(length)[None].repeat(2, 1)
    chunk = parallel.chunk_for(module, x, fill=-1, multiple=multiple)
    assert parallel.chunk_for(parallel.parallelize(module, None), x) is x
    return chunk[0].tolist()


@pytest.mark.parametrize(
    ("length", "multiple", "expected"),
    [
        (6, 1, [[0, 1], [2, 3], [4], [5]]),
        (2, 1, [[0], [1], [-1], [-1]]),
        (7, 3, [[0, 1, 2], [3, 4, 5], [6, -1, -1], [-1]]),
    ],
)
def test_chunks_of_whole_sequences(four, length, multiple, expected):
    assert four.run(chunks_for, length, multiple) == expected
