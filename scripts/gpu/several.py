"""Section nccl: as many GPUs as there are: how fast they add up, and whether a sequence in chunks is the whole one."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from benchmarks.measuring import WrongResultError
from benchmarks.recording import Record
from benchmarks.reporting import Table, size
from torch import Tensor

from gpu.running import Part, Section, Settings
from gpu.timing import fastest
from lambda_seq import LambdaLayer1d, create_model, parallel

LAYERS: dict[str, dict[str, Any]] = {
    "local": {"scope": 31},
    "global": {"scope": None, "max_length": 4096},
    "causal": {"scope": 31, "causal": True},
}
ALLOWED = 1e-4  # relative error in float32 of layers


def cells(settings: Settings) -> list[Record]:
    """Sums over processes, layers on chunks, and a network by DistributedDataParallel."""
    sizes = settings.sized((2**20, 2**28), (2**10,))
    layers = settings.sized(tuple(LAYERS), ("local",))
    found = [{"what": "sum", "bytes": count} for count in sizes]
    return [*found, *({"what": "chunks", "layer": name} for name in layers), {"what": "ddp"}]


def run(key: Record, settings: Settings) -> Record:
    """One of them, on all GPUs; on a CPU, by two processes and gloo."""
    count = torch.cuda.device_count() if settings.device == "cuda" else 2
    if count < 2:
        return {"status": "not run", "message": "one GPU"}
    with tempfile.TemporaryDirectory() as folder:
        # On a CPU by forks, which import nothing anew; no driver of a GPU survives one
        method = "spawn" if settings.device == "cuda" else "fork"
        processes.start_processes(_process, (count, folder, key, settings), nprocs=count, start_method=method)
        found: Record = torch.load(Path(folder) / "found.pt", weights_only=True)
    if "off" in found and not found["off"] <= ALLOWED:
        raise WrongResultError(f"off by {found['off']:.1e}, {ALLOWED:.0e} is allowed")
    return {**found, "processes": count}


def _process(rank: int, count: int, folder: str, key: Record, settings: Settings) -> None:
    """One of the processes; the first writes what was found."""
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(count)}
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda", rank) if settings.device == "cuda" else torch.device("cpu")
    if settings.device == "cuda":
        torch.cuda.set_device(device)
    store = dist.FileStore(str(Path(folder) / "store"), count)
    backend = "nccl" if settings.device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        found = {"sum": _sum, "chunks": _chunks, "ddp": _ddp}[key["what"]](key, device, settings)
        if rank == 0:
            torch.save(found, Path(folder) / "found.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _sum(key: Record, device: torch.device, settings: Settings) -> Record:
    x = torch.ones(key["bytes"] // 2, dtype=torch.bfloat16, device=device)
    rounds = 5 if settings.tiny else 20
    for _ in range(2):
        dist.all_reduce(x.fill_(1))
    if float(x[0]) != dist.get_world_size():
        raise ValueError(f"a sum of ones over {dist.get_world_size()} processes is {float(x[0])}")

    def several() -> None:  # equally often on all processes
        for _ in range(rounds):
            dist.all_reduce(x)

    return {"rate": key["bytes"] * rounds / fastest(several, device.type, 0.0)}


def _chunks(key: Record, device: torch.device, settings: Settings) -> Record:
    torch.manual_seed(2021)
    layer = LambdaLayer1d(64, heads=4, norm="rms", **LAYERS[key["layer"]]).to(device)
    x = torch.randn(2, settings.sized(4096, 64), 64, device=device)
    grad = torch.randn_like(x)
    right = _results(layer, x, grad)
    mesh = parallel.make_mesh(dist.get_world_size(), device.type)
    spread = parallel.parallelize(copy.deepcopy(layer), mesh)
    own = parallel.shard_sequence(x, mesh).requires_grad_()
    output = spread(own)
    output.backward(parallel.shard_sequence(grad, mesh) * dist.get_world_size())
    parallel.average_gradients(spread, mesh)
    given: Any = own.grad
    found = [
        parallel.gather_sequence(output.detach(), mesh),
        parallel.gather_sequence(given, mesh) / dist.get_world_size(),
        *(parameter.grad for parameter in spread.parameters()),
    ]
    return {"off": _off(found, right)}


def _ddp(key: Record, device: torch.device, settings: Settings) -> Record:
    """Gradients of halves of a batch, averaged, against those of the whole."""
    torch.manual_seed(2021)
    model = create_model("lambda_encoder", dim=32, depth=2, norm="rms", num_classes=4).to(device)
    count, rank = dist.get_world_size(), dist.get_rank()
    tokens = torch.randint(257, (2 * count, 128), device=device)
    dist.broadcast(tokens, 0)
    whole = copy.deepcopy(model)
    whole(tokens).square().mean().backward()
    given: dict[str, Any] = {"device_ids": [device.index]} if device.type == "cuda" else {}
    spread = torch.nn.parallel.DistributedDataParallel(model, **given)
    spread(tokens[2 * rank : 2 * rank + 2]).square().mean().backward()
    pairs = zip(model.parameters(), whole.parameters(), strict=True)
    grads = [(one.grad, other.grad) for one, other in pairs]
    return {"off": _off([one for one, _ in grads], [other for _, other in grads])}


def _results(layer: torch.nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    given = x.clone().requires_grad_()
    output = layer(given)
    return [output.detach(), *torch.autograd.grad(output, [given, *layer.parameters()], grad)]


def _off(found: Sequence[Any], right: Sequence[Any]) -> float:
    return max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
        for one, other in zip(found, right, strict=True)
    )


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """One table, or that there is one GPU."""
    if records and all(one["message"] == "one GPU" for one in records):
        yield "One GPU: nothing to share."
        return
    rows = []
    for one in records:
        key = one["key"]
        what = (
            f"sum of {size(key['bytes'])}" if key["what"] == "sum" else f"{key['what']} {key.get('layer', '')}".strip()
        )
        found = f"{one['rate'] / 1e9:.1f} GB/s" if "rate" in one else f"off by {one['off']:.1e}" if "off" in one else ""
        said = "" if one["status"] == "measured" else f"{one['status']}: {one['message']}"
        rows.append((what, str(one.get("processes", "")), found, said))
    yield Table("Several processes", ("", "processes", "found", "not measured"), tuple(rows))


SECTION = Section("nccl", "Several GPUs", 15, cells, run, parts)
