"""Section training: networks learn from generated data on the device, in a loop and by the command line."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmarks.measuring import NotInstalledError, WrongResultError
from benchmarks.recording import Record
from benchmarks.reporting import Series, Table, number, seconds, size
from torch import Tensor

from gpu.running import Part, Section, Settings
from lambda_seq import create_model

ROOT = Path(__file__).resolve().parents[2]
SECONDS = {"language": 45.0, "pictures": 35.0}
PRECISIONS = ("bf16-mixed", "16-mixed", "bf16-true")
FALLS = 0.8  # part of the first losses that the last ones come below
PERIOD, VOCABULARY = 24, 64  # of what the language model learns: a row repeats a random phrase
POINTS = 60  # of a curve


def cells(settings: Settings) -> list[Record]:
    """Two networks, then the command line in three precisions."""
    found: list[Record] = [{"what": name} for name in SECONDS]
    precisions = settings.sized(PRECISIONS if settings.device == "cuda" else PRECISIONS[::2], PRECISIONS[:1])
    return found + [{"what": "command line", "precision": name} for name in precisions]


def run(key: Record, settings: Settings) -> Record:
    """One of them.

    Raises:
        WrongResultError: the loss does not fall, or is not finite.
    """
    if key["what"] == "command line":
        return command_line(key["precision"], settings)
    return learn(key["what"], settings)


# In a loop


def language(settings: Settings) -> tuple[torch.nn.Module, Callable[[torch.Generator], tuple[Tensor, Tensor]]]:
    """A language model, and rows that repeat a phrase: it has to look back by the phrase's length."""
    sizes = settings.sized({"dim": 256, "depth": 4, "heads": 8}, {"dim": 32, "depth": 1, "heads": 2})
    model = create_model("lambda_lm", vocab_size=VOCABULARY, scope=31, **sizes)
    rows, length = settings.sized((8, 4096), (8, 96))

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        phrase = torch.randint(VOCABULARY, (rows, PERIOD), device=settings.device, generator=generator)
        text = phrase.repeat(1, length // PERIOD + 2)[:, : length + 1]
        return text[:, :-1], text[:, 1:]

    return model, batch


def pictures(settings: Settings) -> tuple[torch.nn.Module, Callable[[torch.Generator], tuple[Tensor, Tensor]]]:
    """A network of pictures, and stripes of ten directions in noise."""
    name = settings.sized("lambda_resnet26_small", "lambda_resnet_tiny")
    model, (count, side) = create_model(name), settings.sized((256, 32), (32, 8))
    place = torch.arange(side, device=settings.device, dtype=torch.float32)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (count,), device=settings.device, generator=generator)
        angle = labels * (math.pi / 10)
        wave = angle.cos()[:, None, None] * place[:, None] + angle.sin()[:, None, None] * place
        phase = 6.3 * torch.rand(count, 1, 1, device=settings.device, generator=generator)
        noise = torch.randn(count, 3, side, side, device=settings.device, generator=generator)
        return (1.5 * wave + phase).sin()[:, None] + noise, labels

    return model, batch


def learn(name: str, settings: Settings) -> Record:
    """Train in bf16 by AdamW; the curve of the loss, and how fast it went."""
    torch.manual_seed(0)
    device, allowed = settings.device, settings.sized(SECONDS[name] * settings.scale, 2.5)
    model, batch = (language if name == "language" else pictures)(settings)
    model = model.to(device).train()
    if name == "pictures":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.sized(1e-3, 3e-3), weight_decay=0.01)
    generator = torch.Generator(device).manual_seed(1)
    losses, ends = [], []
    begin = time.perf_counter()
    while True:
        x, target = batch(generator)
        with torch.autocast(device, torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float().flatten(0, -2), target.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        if len(losses) % 10 == 0 or device == "cpu":  # the host waits every tenth step
            float(losses[-1])
            ends.append((len(losses), time.perf_counter() - begin))
            if ends[-1][1] > allowed:
                break
    curve = torch.stack(losses).float().cpu()
    if not bool(curve.isfinite().all()):
        raise WrongResultError(f"the loss is not finite at step {int((~curve.isfinite()).nonzero()[0])}")
    few = max(1, len(curve) // 20)
    first, last = float(curve[:few].mean()), float(curve[-few:].mean())
    (early, since), (steps, until) = ends[len(ends) // 4], ends[-1]
    step = (until - since) / max(1, steps - early)
    if not last < FALLS * first and not settings.tiny:
        raise WrongResultError(f"the loss fell from {first:.3f} to {last:.3f} only, in {len(curve)} steps")
    each = max(1, len(curve) // POINTS)
    points = [[index, float(curve[index : index + each].mean())] for index in range(0, len(curve), each)]
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {
        "first": first,
        "last": last,
        "steps": len(curve),
        "step": step,
        "positions": float(target.numel() / step),
        "peak_bytes": peak,
        "curve": points,
    }


# By the command line


def command_line(precision: str, settings: Settings) -> Record:
    """Some steps of `lambda-seq fit`, in a process of its own, with the losses that it logs.

    Raises:
        NotInstalledError: what trains is not installed.
        WrongResultError: a loss is not finite, or there is none.
    """
    for module in ("lightning", "jsonargparse", "datasets", "torchmetrics", "tokenizers", "soundfile", "sklearn"):
        try:
            __import__(module)
        except ImportError as error:
            raise NotInstalledError(f"pip install '.[train]' ({error})") from None
    steps = settings.sized(40, 6)
    with tempfile.TemporaryDirectory() as folder:
        words = ["fit", "--config", "associative_recall", "--output_dir", folder, "--data.batch_size", "16"]
        words += ["--data.train_size", str(16 * steps), "--trainer.max_epochs", "1"]
        words += ["--test_after_fit", "false", "--export", "false"]
        words += ["--trainer.accelerator", "gpu" if settings.device == "cuda" else "cpu", "--trainer.devices", "1"]
        words += ["--trainer.precision", precision, "--trainer.log_every_n_steps", "1"]
        words += ["--trainer.limit_val_batches", "2", "--trainer.enable_progress_bar", "false"]
        command = [sys.executable, "-m", "lambda_seq.tasks.cli", *words]
        variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=ROOT)
        taken = time.perf_counter() - begin
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise RuntimeError(f"lambda-seq fit ended with status {done.returncode}: {' '.join(last)[:250]}")
        losses = logged(Path(folder))
    if not losses or not all(map(math.isfinite, losses)):
        raise WrongResultError(f"the losses that were logged are {losses[:5]} …")
    return {"first": losses[0], "last": losses[-1], "steps": len(losses), "whole": taken}


def logged(folder: Path) -> list[float]:
    """Losses of the steps, from metrics.csv."""
    found = []
    for file in sorted(folder.rglob("metrics.csv")):
        with file.open(newline="", encoding="utf-8") as stream:
            found += [float(row["train/loss_step"]) for row in csv.DictReader(stream) if row.get("train/loss_step")]
    return found


TITLES = {"language": "a language model, rows of 4,096", "pictures": "LambdaResNet-26, 32²"}


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """One table."""
    rows = []
    for one in records:
        what = TITLES.get(one["key"]["what"]) or f"lambda-seq fit, {one['key']['precision']}"
        right = one["status"] == "measured"
        rows.append(
            (
                what,
                f"{one['first']:.3f} → {one['last']:.3f}" if right else "",
                str(one.get("steps", "")),
                seconds(one.get("step")),
                number(one["positions"]) if "positions" in one else "",
                size(one.get("peak_bytes")),
                "" if right else f"{one['status']}: {one['message']}",
            )
        )
    columns = ("training", "loss", "steps", "a step", "positions or pictures a second", "memory", "not measured")
    yield Table("Trainings on generated data", columns, tuple(rows))


def series(records: Sequence[Record]) -> list[Series]:
    """Losses against steps."""
    return [
        Series(
            TITLES[one["key"]["what"]], style, tuple((float(step) + 1, value, False) for step, value in one["curve"])
        )
        for style, one in enumerate(records)
        if "curve" in one
    ]


SECTION = Section("training", "Training", 105, cells, run, parts, grace=25)
