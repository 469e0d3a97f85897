"""A task in which length matters: find the needle, in the same time and memory for each method.

    python scripts/needle_demo.py [options]

Among N tokens stands one key; the class is the value behind it, and half of all other tokens are values too. Each
method mixes positions in the same small encoder, answers at the last position, and trains for --seconds in a process of
its own under --budget: at first on short sequences, on twice as long ones whenever nine in ten answers are right, up to
N. A method whose first training step at N runs out of memory, or takes longer than all of the time, does not take part
at that N. Leaves needle_demo.json, .md and .png in --out; Ctrl-C keeps what was measured, --resume goes on.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.command_line import add_machine, add_results, byte_count, open_recorder
from benchmarks.machine import Others, available_memory, budget, describe, disturbs, load
from benchmarks.measuring import Limits, in_fresh_process
from benchmarks.methods import TOLERANCES, Case, new_layer
from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, show
from demo.cells import PRELOAD, at_most, how_it_ended
from demo.encoder import encoder
from demo.layers import METHODS
from demo.picture import STYLES
from torch import Tensor, nn

from lambda_seq.tasks.data.synthetic.recall import Recall

VALUES, FIRST_LENGTH, SOLVED = 8, 64, 0.9
RECENT = 10  # steps whose answers say whether a length is solved


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and test; 0, 1 if a training failed, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda: no CUDA device was found; use --device cpu")
    if min(options.lengths) < FIRST_LENGTH:
        sys.exit(f"error: --lengths {min(options.lengths)}: expected at least {FIRST_LENGTH}, where training begins")
    if options.device == "cpu":
        options.budget = min(options.budget, int(0.9 * available_memory()))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # for what processes preload
    machine = describe(options.threads, options.device)
    if busy := load():
        print(f"{busy}; trainings that are disturbed are marked ~")
    command = ["python", "scripts/needle_demo.py", *given]
    recorder = open_recorder(options.out / "needle_demo.json", command, machine, options.resume)
    limits = Limits(options.budget, 3 * options.seconds + 120, threads=options.threads, device=options.device)
    fixed = {name: getattr(options, name) for name in ("dim", "scope", "seconds", "budget", "seed", "device", "dtype")}
    keys = [{"method": name, "length": length, **fixed} for length in options.lengths for name in options.methods]
    recorder.run(
        keys,
        lambda key: f"{METHODS[key['method']].label}, {key['length']:,} tokens",
        lambda key: measure(key, limits),
    )
    records = [found for key in keys if (found := recorder.find(key))]
    report(recorder, records, options)
    return 130 if recorder.interrupted else int(any(record["status"] == "failed" for record in records))


# One training


def measure(key: Record, limits: Limits) -> Record:
    """Train and test a method at a length, in a process of its own."""
    outcome = in_fresh_process(train_and_test, key, limits=limits, preload=PRELOAD)
    status, message = how_it_ended(outcome, f"one step not done after {key['seconds']:g} s")
    numbers = {
        "accuracy": None,
        "tested": 0,
        "steps": 0,
        "trained_length": None,
        "others": None,
        **(outcome.value or {}),
    }
    return {"status": status, "message": message, **numbers, "disturbed": disturbs(numbers["others"], limits.threads)}


def train_and_test(key: Record) -> Record:
    """The same in this process: accuracy on sequences of this length, how many, steps and the longest trained on."""
    length, device = key["length"], key["device"]
    case = Case((length,), 1, key["dim"], 4, 16, key["scope"], key["dtype"], device)
    task = Recall(length, pairs=1, keys=1, values=VALUES, noise=1, distractors=0.5)
    options: dict[str, Any] = {"num_classes": VALUES, "vocab_size": task.vocab_size, "strides": (1,), "pool": "last"}
    build = partial(encoder, key["method"], block_norm="layer", **options)
    with budget(key["budget"], device):
        with at_most(key["seconds"]):  # whether it takes part
            step(new_layer(build, case).train(), None, task, np.random.default_rng(0), device)
        model, random = new_layer(build, case).train(), np.random.default_rng([key["seed"], length])
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
        others = Others()
        begin, steps, recent, trained, size = time.monotonic(), 0, list[float](), 0, FIRST_LENGTH
        while (spent := time.monotonic() - begin) < key["seconds"]:
            # Falls with the time, not with steps, of which slow methods make few
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1.0, 2 * (1 - spent / key["seconds"])) * min(1.0, (steps + 1) / 20)
            recent.append(step(model, optimizer, replace(task, length=size), random, device))
            steps, trained = steps + 1, max(trained, size)
            if len(recent) >= RECENT and sum(recent[-RECENT:]) >= SOLVED * RECENT and size < length:
                size, recent = min(2 * size, length), []
        share = others.share()
        accuracy, tested = accuracy_on(model.eval(), task, key)
    return {"accuracy": accuracy, "tested": tested, "steps": steps, "trained_length": trained, "others": share}


def batch(task: Recall, count: int, random: np.random.Generator, device: str) -> tuple[Tensor, Tensor]:
    """Sequences (B, N) and their classes (B,)."""
    sequences, values = zip(*(task.draw(random) for _ in range(count)), strict=True)
    return torch.from_numpy(np.stack(sequences)).to(device), torch.tensor(values, device=device)


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, task: Recall, random: np.random.Generator, device: str
) -> float:
    """A training step of 16,384 tokens, two sequences at least; the share of right answers."""
    x, label = batch(task, max(2, min(64, 2**14 // task.length)), random, device)
    logits = model(x).float()
    F.cross_entropy(logits, label).backward()
    if optimizer is not None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float((logits.argmax(1) == label).float().mean())


@torch.inference_mode()
def accuracy_on(model: nn.Module, task: Recall, key: Record) -> tuple[float, int]:
    """Accuracy on up to 256 sequences, the same for all methods, as many as --seconds suffice for; and how many."""
    random, begin, right, count = np.random.default_rng([2102, task.length]), time.monotonic(), 0, 0
    while count < 256 and (time.monotonic() - begin < key["seconds"] or count == 0):
        x, label = batch(task, 2, random, key["device"])
        right, count = right + int((model(x).argmax(1) == label).sum()), count + len(x)
    return right / count, count


# What is left behind


def report(recorder: Recorder, records: Sequence[Record], options: argparse.Namespace) -> None:
    """Table, notes and picture."""
    lengths = list(options.lengths)
    found = {(record["key"]["method"], record["key"]["length"]): record for record in records}
    rows = [(METHODS[name].label, *(cell(found.get((name, length))) for length in lengths)) for name in options.methods]
    title = f"Needle retrieval: test accuracy after {options.seconds:g} s of training"
    errors = [math.sqrt(0.25 / record["tested"]) for record in records if record["tested"]]
    notes = [
        f"Chance is {1 / VALUES:.1%}. In brackets, where it is shorter than the column's: the longest sequences that "
        f"training came to. Standard errors are at most {max(errors, default=0):.1%}.",
        *(
            f"{METHODS[record['key']['method']].label}, {record['key']['length']:,}: {record['message']}"
            for record in records
            if record["status"] == "failed"
        ),
    ]
    if shares := [record["others"] for record in records if record.get("others") is not None]:
        line = f"Other programs took up to {max(shares):.0%} of the cores"
        disturbed = sum(bool(record.get("disturbed")) for record in records)
        notes.append(
            f"{line}: ~ marks {disturbed} trainings that so made fewer steps in their time" if disturbed else line
        )
    show([Table(title, ("", *(f"{length:,}" for length in lengths)), tuple(rows))], notes, recorder)
    if any(record["status"] == "measured" for record in records):
        draw(recorder.file.with_suffix(".png"), title, records, options)


def cell(record: Record | None) -> str:
    """98.8 %, or why there is none."""
    if record is None:
        return ""
    if record["status"] != "measured":
        return record["status"]
    short = record["trained_length"] < record["key"]["length"]
    found = f"{100 * record['accuracy']:.1f} %" + f" ({record['trained_length']:,})" * short
    return f"~ {found}" if record.get("disturbed") else found


def draw(file: Path, title: str, records: Sequence[Record], options: argparse.Namespace) -> None:
    """Accuracy against length, a panel for each method: small lines side by side do not hide each other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(options.methods))
    rows = -(-len(options.methods) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.4 * columns, 1.2 + 1.9 * rows), dpi=150, sharey=True, layout="constrained"
    )
    places = {length: place for place, length in enumerate(options.lengths)}
    panels = list(np.ravel(np.asarray(grid)))
    for axes, name in zip(panels, options.methods, strict=False):
        colour, _ = STYLES[name]
        axes.axhline(100 / VALUES, color="0.5", linewidth=1, linestyle=":")
        for record in records:
            if record["key"]["method"] != name:
                continue
            place = places[record["key"]["length"]]
            if record["status"] == "measured":
                height = 100 * record["accuracy"]
                axes.bar(place, height, color=colour, width=0.75)
                axes.text(place, height + 2, f"{height:.0f}", ha="center", va="bottom", fontsize=8)
            else:
                words = record["status"].replace(" ", "\n")
                axes.text(place, 4, words, ha="center", va="bottom", fontsize=8, color="#A00000")
        bold = "bold" if METHODS[name].ours else "normal"
        axes.set_title(METHODS[name].label, loc="left", fontsize=10, fontweight=bold)
        axes.set(ylim=(0, 118), yticks=(0, 50, 100), xlim=(-0.6, len(places) - 0.4))
        axes.set_xticks(list(places.values()), [short(length) for length in places], fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(options.methods) :]:
        axes.remove()
    figure.suptitle(f"{title} (%)\n", x=0.01, ha="left", fontsize=12)
    figure.supxlabel(f"tokens; dotted: chance; budget {options.budget / 2**30:.3g} GiB", x=0.01, ha="left", fontsize=9)
    figure.savefig(file)
    plt.close(figure)


def short(length: int) -> str:
    """65536 -> '64K'."""
    return f"{length // 1024}K" if length >= 1024 and length % 1024 == 0 else str(length)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = command.add_argument
    names = [name for name, method in METHODS.items() if 1 in method.dims]
    add("--lengths", type=int, nargs="+", default=[1024, 4096, 16384, 65536], metavar="N", help="%(default)s")
    add("--methods", nargs="+", choices=names, default=names, metavar="NAME", help=f"{', '.join(names)} (all)")
    add("--seconds", type=float, default=60.0, help="of training, for each method and length (%(default)s)")
    add("--budget", type=byte_count, default=8 * 2**30, metavar="SIZE", help="memory of a process (8GiB)")
    add("--dim", type=int, default=32, help="channels, a multiple of 4 (%(default)s)")
    add("--scope", type=int, default=127, help="positions that local methods see (%(default)s)")
    add("--seed", type=int, default=0)
    add("--dtype", choices=tuple(TOLERANCES), default="float32")
    add_machine(command, threads=torch.get_num_threads())
    add_results(command, "outputs/needle_demo")
    return command


if __name__ == "__main__":
    sys.exit(main())
