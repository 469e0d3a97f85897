"""Section pictures: how many a second LambdaResNet-50 and ResNet-50 see, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from benchmarks.recording import Record
from benchmarks.reporting import Table, number, size

from gpu.running import Part, Section, Settings
from gpu.timing import fastest
from lambda_seq import create_model

NETWORKS = ("lambda_resnet50", "resnet50")
BATCH = 128


def cells(settings: Settings) -> list[Record]:
    """Networks, sizes, and whether they train."""
    sizes, names = settings.sized((224, 256), (32,)), settings.sized(NETWORKS, ("lambda_resnet_tiny", "resnet_tiny"))
    return [
        {"network": name, "side": side, "batch": settings.sized(BATCH, 2), "train": train}
        for side in sizes
        for train in (True, False)
        for name in names
    ]


def run(key: Record, settings: Settings) -> Record:
    """Pictures a second in bf16, channels last; a training step with SGD."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    device, count = settings.device, key["batch"]
    last = torch.channels_last
    network = create_model(key["network"]).to(device).to(memory_format=last).train(key["train"])  # type: ignore[call-overload]
    x = torch.randn(count, 3, key["side"], key["side"], device=device).to(memory_format=last)
    labels = torch.randint(network.num_classes, (count,), device=device)
    step = training(network, x, labels) if key["train"] else evaluating(network, x)
    first = float(step().float().mean())
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = fastest(step, device, settings.sized(1.5 * settings.scale, 0.01))
    last_value = float(step().float().mean())
    if not first == first or not last_value == last_value:
        raise ValueError("the network's output is not a number")
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"pictures": count / taken, "peak_bytes": peak, "loss": [first, last_value] if key["train"] else None}


def training(network: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A step that learns; returns the loss."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, foreach=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = F.cross_entropy(network(x).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def evaluating(network: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A step that answers; returns the logits."""

    @torch.inference_mode()
    def step() -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: torch.Tensor = network(x)
        return logits

    return step


def rate(records: Sequence[Record], network: int, side: int, train: bool) -> float | None:
    """Pictures a second of the lambda network (0) or the other (1)."""
    for one in records:
        key = one["key"]
        if (key["network"].startswith("lambda"), key["side"], key["train"]) == (network == 0, side, train):
            found: float | None = one.get("pictures")
            return found
    return None


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """One table."""
    rows = []
    for side, train in dict.fromkeys((one["key"]["side"], one["key"]["train"]) for one in records):
        ours, peer = (rate(records, network, side, train) for network in (0, 1))
        peaks = [one.get("peak_bytes") for one in records if (one["key"]["side"], one["key"]["train"]) == (side, train)]
        rows.append(
            (
                f"{side}², {'training' if train else 'evaluation'}",
                "" if ours is None else number(ours),
                "" if peer is None else number(peer),
                "" if ours is None or peer is None else f"{ours / peer:.2f}",
                " and ".join(size(peak) for peak in peaks if peak is not None),
            )
        )
    names = sorted({one["key"]["network"] for one in records}, key=lambda name: not name.startswith("lambda"))
    columns = ("", *(names if len(names) == 2 else NETWORKS), "ratio", "memory of both")
    yield Table("Pictures a second, bf16, channels last", columns, tuple(rows))
    for one in records:
        if one["status"] != "measured":
            yield f"{one['key']['network']} at {one['key']['side']}²: {one['status']}, {one['message']}"


SECTION = Section("pictures", "Pictures", 45, cells, run, parts, grace=25)
