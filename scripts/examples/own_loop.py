"""A language model of one's own with lambda layers, trained by a loop of one's own: python scripts/examples/own_loop.py

Bytes of a file, by default of Python's standard library. Lightning Fabric brings devices, processes and precision;
leave its five lines out and the loop is plain torch. Everything else is on this page.

    python scripts/examples/own_loop.py --text book.txt --steps 2000 --devices 2 --precision bf16-mixed
"""

from __future__ import annotations

import argparse
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from lambda_seq import LambdaLayer1d


class Block(nn.Module):
    """Mixing over positions, then over channels."""

    def __init__(self, dim: int, scope: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(dim) for _ in range(2))
        self.mix = LambdaLayer1d(dim, heads=4, scope=scope, causal=True)  # where others have self-attention
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) to as many."""
        x = x + self.mix(self.norms[0](x))  # (B, N, dim)
        return x + self.feed(self.norms[1](x))


class Bytes(nn.Module):
    """Logits (B, N, 256) of the byte after each of (B, N)."""

    def __init__(self, dim: int, depth: int, scope: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, dim)
        self.blocks = nn.Sequential(*(Block(dim, scope) for _ in range(depth)), nn.RMSNorm(dim))
        self.head = nn.Linear(dim, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Of ids (B, N)."""
        return self.head(self.blocks(self.embedding(tokens)))


def main(arguments: Sequence[str] | None = None) -> float:
    """Train; the last validation loss in nats per byte."""
    options = parser().parse_args(arguments)
    fabric = Fabric(accelerator=options.accelerator, devices=options.devices, precision=options.precision)
    fabric.launch()
    fabric.seed_everything(options.seed + fabric.global_rank)

    text = torch.frombuffer(bytearray(options.text.read_bytes() if options.text else library()), dtype=torch.uint8)
    train, validation = text.split([len(text) * 9 // 10, len(text) - len(text) * 9 // 10])

    def batch(source: Tensor) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(source) - options.length, (options.batch_size,))
        rows = torch.stack([source[start : start + options.length + 1] for start in starts])
        rows = fabric.to_device(rows.long())
        return rows[:, :-1], rows[:, 1:]

    def nats(source: Tensor) -> Tensor:
        tokens, target = batch(source)
        return F.cross_entropy(model(tokens).flatten(0, 1), target.flatten())

    model = Bytes(options.dim, options.depth, options.scope)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    model, optimizer = fabric.setup(model, optimizer)
    loss = float("nan")
    for step in range(1, options.steps + 1):
        optimizer.zero_grad()
        fabric.backward(nats(train))
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        if step % options.every == 0 or step == options.steps:
            model.eval()
            with torch.no_grad():
                mean = fabric.all_reduce(torch.stack([nats(validation) for _ in range(8)]).mean())
            model.train()
            loss = float(mean)  # type: ignore[arg-type]  # a tensor, as what was given
            fabric.print(f"step {step}: {loss:.3f} nats per byte")
    return loss


def library() -> bytes:
    """Two megabytes of Python's standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return b"".join(file.read_bytes() for file in files)[: 2**21]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--text", type=Path, help="a file (Python's standard library)")
    sizes = {"steps": 300, "batch_size": 8, "length": 1024, "dim": 128, "depth": 4, "scope": 127, "every": 50}
    for name, default in sizes.items():
        add(f"--{name}", type=int, default=default, help="%(default)s")
    add("--seed", type=int, default=0, help="%(default)s")
    add("--lr", type=float, default=3e-3, help="%(default)s")
    add("--accelerator", default="auto", help="%(default)s")
    add("--devices", type=int, default=1, help="%(default)s")
    add("--precision", default="32-true", help="%(default)s")
    return command


if __name__ == "__main__":
    main()
