"""What a training loop calls: split sequences, let modules work on chunks, bring gradients together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lambda_seq.layers import UNSHARDED, LambdaLayer, LambdaLayer1d, MaskedBatchNorm, SequenceContext
from lambda_seq.layers.norm import BatchNorm
from lambda_seq.parallel import collectives
from lambda_seq.parallel.layout import Layout, joined, own_chunk
from lambda_seq.parallel.sharded import ShardedContext

DATA, SEQUENCE = "data", "sequence"

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def make_mesh(sequence_parallel: int, device_type: str = "cpu") -> DeviceMesh:
    """A mesh of all processes with dimensions "data" and "sequence"; neighbours in rank share a sequence.

    Args:
        sequence_parallel: number of processes that share a sequence.
        device_type: "cpu" or "cuda".

    Raises:
        ValueError: it does not divide the number of processes.
    """
    world = dist.get_world_size()
    if sequence_parallel < 1 or world % sequence_parallel:
        fitting = [count for count in range(1, world + 1) if world % count == 0]
        raise ValueError(
            f"sequence_parallel={sequence_parallel} does not divide the world of {world} processes: expected one of "
            f"{', '.join(map(str, fitting))}, or start a multiple of {sequence_parallel} processes"
        )
    return init_device_mesh(
        device_type, (world // sequence_parallel, sequence_parallel), mesh_dim_names=(DATA, SEQUENCE)
    )


def sequence_group(mesh: DeviceMesh, mesh_dim: str = SEQUENCE) -> dist.ProcessGroup:
    """The processes that share a sequence with this one.

    Args:
        mesh: of one dimension, or of several with names.
        mesh_dim: name of the dimension along which sequences are split, where there are several.

    Raises:
        TypeError: mesh is no DeviceMesh.
        ValueError: it has no such dimension, or this process is not in it.
    """
    if not isinstance(mesh, DeviceMesh):
        raise TypeError(f"mesh is {type(mesh).__name__}: expected a DeviceMesh; use parallel.make_mesh")
    if mesh.ndim > 1 and mesh_dim not in (mesh.mesh_dim_names or ()):
        raise ValueError(
            f"mesh_dim={mesh_dim!r}: the mesh has dimensions {mesh.mesh_dim_names}; give one of them, or name them "
            "with init_device_mesh(..., mesh_dim_names=...)"
        )
    if mesh.get_coordinate() is None:
        raise ValueError(f"mesh: process {dist.get_rank()} is not in {mesh}; call this on its processes only")
    return mesh.get_group(mesh_dim) if mesh.ndim > 1 else mesh.get_group()


def shard_sequence(x: Tensor, mesh: DeviceMesh, dim: int = 1, *, mesh_dim: str = SEQUENCE, multiple: int = 1) -> Tensor:
    """This process's chunk of sequences that it has as a whole, a copy.

    Chunks differ by at most one unit of `multiple` positions, the longer ones first; the last may end within a unit.

    Args:
        x: positions along `dim`; inputs, masks, targets, alike on all processes that share a sequence.
        mesh, mesh_dim: as for `sequence_group`.
        dim: of the positions.
        multiple: product of the strides of the network's stem, `encoder.stem.stride`.

    Raises:
        ValueError: fewer units than processes, or what `sequence_group` raises.
    """
    return own_chunk(x, sequence_group(mesh, mesh_dim), dim, multiple)


def chunk_for(module: nn.Module, x: Tensor, *, fill: float = 0, multiple: int = 1) -> Tensor:
    """The positions of whole sequences on which a module works in this process; x itself unless it is parallelized.

    As `shard_sequence`, but sequences that are too short for all processes are lengthened.

    Args:
        module: after `parallelize`, or not.
        x: (B, N, …), alike on all processes that share a sequence.
        fill: what is put behind sequences that have fewer positions, or units of `multiple`, than processes.
        multiple: product of the strides of the network's stem, `encoder.stem.stride`.
    """
    context = getattr(module, "sequence", UNSHARDED)
    return context.chunk(x, fill, multiple) if isinstance(context, ShardedContext) else x


def gather_sequence(x: Tensor, mesh: DeviceMesh, dim: int = 1, *, mesh_dim: str = SEQUENCE) -> Tensor:
    """Whole sequences from chunks of any lengths, on every process; the way back of `shard_sequence`.

    Its gradient is the sum of what all processes make of the result; see `average_gradients`.

    Args:
        x: this process's chunk, positions along `dim`.
        mesh, mesh_dim: as for `sequence_group`.
        dim: of the positions.

    Raises:
        ValueError: a chunk without a position, or what `sequence_group` raises.
    """
    group = sequence_group(mesh, mesh_dim)
    dim = dim % x.ndim
    return joined(x, Layout.of(x, group, dim), group, dim)


def sum_over_sequence(x: Tensor, mesh: DeviceMesh, *, mesh_dim: str = SEQUENCE) -> Tensor:
    """The sum of what the processes of a sequence have, on each of them: for losses by position, and their counts."""
    return collectives.total(x, sequence_group(mesh, mesh_dim))


def parallelize(module: AnyModule, mesh: DeviceMesh | None, *, mesh_dim: str = SEQUENCE) -> AnyModule:
    """Let a network, or a layer, work on chunks of sequences that the processes of a mesh dimension share; in place.

    Parameters, buffers and names stay as they are. Each process calls the module with its chunk of x, and of the mask:
    what has positions comes out for this chunk, what has none (pooled vectors, logits of classes) is the same on every
    process, as for whole sequences. All processes must take part in each forward and backward pass, with parameters
    that are alike. A loss must be that of whole sequences, on every process; then the *mean* of the processes'
    gradients is that of a single process: by DistributedDataParallel over all processes of the mesh, data-parallel
    ones included, or by `average_gradients`.

    Args:
        module: with 1D lambda layers of this package; what relates positions in any other way is not seen to.
        mesh: a DeviceMesh; None to work on whole sequences again.
        mesh_dim: name of its dimension, where there are several.

    Returns:
        The module.

    Raises:
        ValueError: a module that cannot work on chunks, or what `sequence_group` raises.
    """
    context = UNSHARDED if mesh is None else ShardedContext(sequence_group(mesh, mesh_dim))
    asking = _asking(module)
    if not any(isinstance(child, LambdaLayer) for child in asking):
        raise ValueError(f"module is a {type(module).__name__} without a lambda layer: there is nothing to split")
    for name, child in module.named_modules():
        if isinstance(child, LambdaLayer) and not isinstance(child, LambdaLayer1d):
            raise ValueError(f"module has a {type(child).__name__}, {name or 'itself'}: only sequences can be split")
        if isinstance(child, BatchNorm) and not isinstance(child, MaskedBatchNorm):
            raise ValueError(
                f"module has a {type(child).__name__}, {name}, which would average over a chunk only: use "
                "lambda_seq.layers.MaskedBatchNorm"
            )
    for child in asking:
        child.sequence = context
    return module


def _asking(module: nn.Module) -> list[Any]:
    """The modules within that ask for positions of other chunks."""
    return [child for child in module.modules() if isinstance(getattr(child, "sequence", None), SequenceContext)]


@contextmanager
def sequence_parallel(module: nn.Module, mesh: DeviceMesh, *, mesh_dim: str = SEQUENCE) -> Iterator[None]:
    """`parallelize` inside a `with`, which forward and, with activation checkpointing, backward passes belong in.

    Raises:
        ValueError: as `parallelize`.
    """
    before = [(child, child.sequence) for child in _asking(module)]
    parallelize(module, mesh, mesh_dim=mesh_dim)
    try:
        yield
    finally:
        for child, context in before:
            child.sequence = context


@torch.no_grad()
def average_gradients(module: nn.Module, mesh: DeviceMesh, *, mesh_dim: str = SEQUENCE) -> None:
    """Replace gradients by their means over the processes that share a sequence, which makes them a single process's.

    For loops without DistributedDataParallel, after `backward`; also beside one over the other dimension alone. A loss
    that each process has of its own chunk only, summing up to the whole, needs the sum: multiply it by the number of
    processes.

    Args:
        module: the network; parameters without a gradient are left out, and must be the same on all processes.
        mesh, mesh_dim: as for `sequence_group`.

    Raises:
        ValueError: as `sequence_group`.
    """
    group = sequence_group(mesh, mesh_dim)
    by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for parameter in module.parameters():
        if parameter.grad is not None:
            by_kind.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
    for grads in by_kind.values():
        flat = collectives.total(torch.cat([grad.flatten() for grad in grads]), group) / group.size()
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))
