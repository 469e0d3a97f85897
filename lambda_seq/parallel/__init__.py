"""Sequence parallelism: sequences that are longer than a device holds, split over a dimension of a DeviceMesh.

    mesh = parallel.make_mesh(sequence_parallel=4)
    parallel.parallelize(model, mesh)
    logits = model(parallel.shard_sequence(x, mesh), parallel.shard_sequence(mask, mesh))
    loss(logits, label).backward()
    parallel.average_gradients(model, mesh)                                        # or DistributedDataParallel

Lambda layers need little of each other's positions: k · v numbers of the content lambda, and the values within a local
scope, whatever the length. Outputs, gradients and statistics are those of one process that has it all. Rows may hold
several documents: each process is given its chunk of their ids, by `shard_sequence` as well.
"""

from lambda_seq.parallel.collectives import Traffic, count_traffic
from lambda_seq.parallel.sequence import (
    DATA,
    SEQUENCE,
    average_gradients,
    chunk_for,
    gather_sequence,
    make_mesh,
    parallelize,
    sequence_group,
    sequence_parallel,
    shard_sequence,
    sum_over_sequence,
)
from lambda_seq.parallel.sharded import EXCHANGES, ShardedContext, lambda_layer

__all__ = [
    "DATA",
    "EXCHANGES",
    "SEQUENCE",
    "ShardedContext",
    "Traffic",
    "average_gradients",
    "chunk_for",
    "count_traffic",
    "gather_sequence",
    "lambda_layer",
    "make_mesh",
    "parallelize",
    "sequence_group",
    "sequence_parallel",
    "shard_sequence",
    "sum_over_sequence",
]
