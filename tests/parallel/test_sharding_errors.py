"""What cannot be split says so on every process, with what would do."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from lambda_seq import LambdaEncoder, LambdaLayer1d, LambdaLayer2d, parallel
from lambda_seq import functional as LF
from lambda_seq.parallel.layout import Layout


def message(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except (ValueError, TypeError) as error:
        return str(error)
    raise AssertionError("no error")


def errors():
    mesh = parallel.make_mesh(4)
    unnamed = init_device_mesh("cpu", (2, 2))
    rank = torch.distributed.get_rank()
    layer = parallel.parallelize(LambdaLayer1d(8, heads=2, dim_key=4, scope=5, norm="rms"), mesh)
    causal = parallel.parallelize(LambdaLayer1d(8, heads=2, dim_key=4, scope=5, norm="rms", causal=True), mesh)
    encoder = parallel.parallelize(LambdaEncoder(dim=8, depth=1, strides=[4], max_length=16, scope=None), mesh)
    plain = parallel.parallelize(LambdaEncoder(dim=8, depth=1, max_length=16, scope=None), mesh)
    x = torch.zeros(2, 3, 8)
    tokens = torch.zeros(2, 3, dtype=torch.long)
    query, group = torch.zeros(1, 2, 5, 3), parallel.sequence_group(mesh)
    return {
        "world": message(parallel.make_mesh, 3),
        "no mesh": message(parallel.parallelize, layer, group),
        "dimension": message(parallel.parallelize, layer, mesh, mesh_dim="context"),
        "unnamed": message(parallel.shard_sequence, x, unnamed),
        "short": message(parallel.shard_sequence, x, mesh),
        "units": message(parallel.shard_sequence, torch.zeros(2, 11), mesh, multiple=4),
        "multiple": message(parallel.shard_sequence, x, mesh, multiple=0),
        "batch": message(layer, x[: 1 + rank % 2]),
        "empty": message(parallel.gather_sequence, x[:, : 3 * (rank < 3)], mesh),
        "unaligned": message(encoder, tokens),
        "long": message(encoder, tokens.repeat(1, 4)[:, :8]),
        "documents": message(encoder, tokens, documents=tokens),
        "packed": message(causal, x, documents=LF.Packing.of(tokens)),
        "packed both ways": message(layer, x, documents=LF.Packing.of(tokens)),
        "packed encoder": message(plain, tokens, documents=LF.Packing.of(tokens)),
        "long document": message(plain, tokens.repeat(1, 2), documents=tokens.repeat(1, 2)),
        "ids": message(causal, x, documents=torch.zeros(2, 3)),
        "packed channels": message(
            parallel.lambda_layer,
            *(query, None, query[:, :1], query[0, :1].mT, group),
            documents=torch.zeros(1, 5, dtype=torch.long),
            causal=True,
            exchange="channels",
        ),
        "2d": message(parallel.parallelize, LambdaLayer2d(8, heads=2, scope=3), mesh),
        "batch norm": message(parallel.parallelize, nn.Sequential(nn.BatchNorm1d(8), layer), mesh),
        "no layer": message(parallel.parallelize, nn.Linear(2, 2), mesh),
        "exchange": message(parallel.lambda_layer, query, query[:, :1], query[:, :1], None, group, exchange="ring"),
        "shape": message(parallel.lambda_layer, query, None, query[:, :1, :4], query[0, :1], group),
    }


PACKED = "documents is a packing of whole rows, but other processes hold parts of them: give the ids of this"
EXPECTED = {
    "world": "sequence_parallel=3 does not divide the world of 4 processes: expected one of 1, 2, 4",
    "no mesh": "mesh is ProcessGroup: expected a DeviceMesh; use parallel.make_mesh",
    "dimension": "mesh_dim='context': the mesh has dimensions ('data', 'sequence'); give one of them",
    "unnamed": "mesh_dim='sequence': the mesh has dimensions None; give one of them, or name them",
    "short": "x has 3 positions for 4 processes: expected at least one of these for each; take fewer processes",
    "units": "x has 11 positions in units of multiple=4 for 4 processes",
    "multiple": "multiple=0: expected at least 1",
    "batch": "x has batch [1, 2, 1, 2] on the processes of one sequence: expected one batch for all",
    "empty": "x has [3, 3, 3, 0] positions on the processes of one sequence: expected at least 1 on each",
    "unaligned": "x is split at positions [3, 6, 9], which are no multiples of the stride 4: split it with",
    "long": "x has 32 positions, longer than max_length=16",
    "documents": "documents: the stem's convolutions, with a stride of 4, mix neighbours across the ends of documents",
    "packed": PACKED,
    "packed both ways": PACKED,
    "packed encoder": PACKED,
    "long document": "x has 24 positions, longer than max_length=16",
    "ids": "documents is torch.float32: expected integer ids",
    "packed channels": "exchange='channels' with documents: expected 'auto' or 'halo'",
    "2d": "module has a LambdaLayer2d, itself: only sequences can be split",
    "batch norm": "module has a BatchNorm1d, 0, which would average over a chunk only: use lambda_seq.layers.Masked",
    "no layer": "module is a Linear without a lambda layer: there is nothing to split",
    "exchange": "exchange='ring': expected one of 'auto', 'halo', 'channels'",
    "shape": "value has shape (1, 1, 4, 3): expected (1, 1, 5, 3)",
}


@pytest.fixture(scope="module")
def found(four):
    return four.run(errors)


@pytest.mark.parametrize("name", EXPECTED)
def test_messages(found, name):
    for answers in found:
        assert EXPECTED[name] in answers[name]


@pytest.mark.parametrize(("length", "ranks", "multiple"), [(10, 4, 1), (37, 4, 4), (16, 4, 4), (13, 3, 4), (7, 7, 1)])
def test_chunks(length, ranks, multiple):
    layout = Layout.even(length, ranks, 0, multiple)
    assert layout.length == length
    assert all(start % multiple == 0 for start in layout.bounds[:-1])
    assert min(layout.sizes) >= 1
    assert max(layout.sizes) - min(layout.sizes) < 2 * multiple
