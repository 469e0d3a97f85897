"""What position embeddings have learned, as a picture: python scripts/draw_positions.py SOURCE [--out positions.png]

SOURCE is a checkpoint of a training (best.ckpt, last.ckpt) or a folder of save_pretrained; --model NAME draws an
untrained network. Each layer is a row. Of sequences: R by key channel and offset, and the energy by offset, the mean of
R² over the channels; far offsets share columns, of which the greatest values are shown. Of images: R of the first key
channels, and the energy. Colours are on a symmetric logarithmic scale where R falls far, and so are many offsets.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from torch import nn

from lambda_seq import create_model
from lambda_seq.layers import LambdaLayer

LINE, SHADE = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito
SIGNED, ENERGY = "PuOr_r", "cividis"  # told apart by colour-blind readers
COLUMNS = 400  # of a heat map; more offsets share them
IMAGES = 16  # key channels of an image embedding that are shown
DECADES = 3  # of R that colours tell apart on a logarithmic scale
FLAT = 100  # ratio of energies among offsets up to which colours are linear
LENGTHS = {1: 1024, 2: 32}  # for embeddings that do not say what they cover


@dataclass(frozen=True)
class Panel:
    """The embedding of one layer: R (U · K, *offsets) with offset 0 at `origin` per dimension."""

    title: str
    values: np.ndarray
    origin: tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 0, or 2 for a source that cannot be drawn, saying why."""
    options = parser().parse_args(arguments)
    try:
        panels = collect(load(options), options.size)
    except (OSError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    draw(panels, options.out, options.title or str(options.source or options.model))
    print(f"{options.out}: {len(panels)} position embeddings")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("source", nargs="?", type=Path, help="checkpoint, or folder of save_pretrained")
    found.add_argument("--model", help="name of an untrained network, in place of a source")
    found.add_argument("--options", type=json.loads, default={}, help="its options, as JSON: '{\"depth\": 2}'")
    found.add_argument("--size", type=int, nargs="+", help="positions: N, or H W; default: what the embeddings cover")
    found.add_argument("--out", type=Path, default=Path("positions.png"), help="file to write; default %(default)s")
    found.add_argument("--title", help="above the picture; default: the source")
    return found


def load(options: argparse.Namespace) -> nn.Module:
    """The network that is asked for.

    Raises:
        ValueError: no source or two, or one that is no network of this library.
        FileNotFoundError: there is no such file or folder.
    """
    if (options.source is None) == (options.model is None):
        raise ValueError("give either a SOURCE, a checkpoint or a folder, or --model NAME")
    if options.model is not None:
        torch.manual_seed(0)
        return create_model(options.model, **options.options)
    if options.source.is_dir():
        from lambda_seq import from_pretrained

        return from_pretrained(options.source)
    return of_checkpoint(options.source)


def of_checkpoint(file: Path) -> nn.Module:
    """The network of a checkpoint of any task; see `tasks.training.Training`."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file or folder; give a .ckpt, or a folder of save_pretrained")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        hparams, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
        if missing := {"network", "facts"} - set(hparams):
            raise KeyError(*missing)
    except Exception as error:
        raise ValueError(
            f"{file} is no checkpoint of a task of lambda_seq ({type(error).__name__}: {error})"
        ) from error
    from lambda_seq.tasks.networks import network_of

    network = network_of(checkpoint)
    prefix = "network."
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    # Nothing else is drawn, and a task may have given the network another head
    wanted = {name for name in network.state_dict() if "position" in name.split(".")}
    try:
        network.load_state_dict({name: own[name] for name in wanted}, strict=False)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file}: its embeddings do not fit {hparams['network']} ({error})") from error
    return network


def collect(model: nn.Module, size: Sequence[int] | None) -> list[Panel]:
    """The embeddings of all layers that have one of their own, in the order of the layers.

    Args:
        model: any module with lambda layers.
        size: positions per dimension; None for what each embedding covers.

    Raises:
        ValueError: there is none, or they have other dimensions than `size`.
    """
    panels, seen = [], set()
    for name, layer in model.named_modules():
        if not isinstance(layer, LambdaLayer) or layer.position is None or id(layer.position) in seen:
            continue
        seen.add(id(layer.position))
        if size is not None and len(size) != layer.dims:
            raise ValueError(f"--size {' '.join(map(str, size))}: {name} takes {layer.dims} dimensions")
        with torch.no_grad():
            embedding = layer.position(tuple(size or covered(layer.position, layer.dims))).detach().float()
        taps = embedding.shape[2:]
        origin = tuple(count - 1 if layer.causal else count // 2 for count in taps)
        intra, keys = embedding.shape[:2]
        kind = type(layer.position).__name__
        depth = f"{intra} × {keys}" if intra > 1 else f"{keys}"
        title = f"{name or 'layer'} · {kind}{', causal' if layer.causal else ''} · {depth} channels"
        panels.append(Panel(title, embedding.flatten(0, 1).numpy(), origin))
    if not panels:
        raise ValueError("the network has no position embedding: there is nothing to draw")
    return panels


def covered(position: nn.Module, dims: int) -> tuple[int, ...]:
    """The size per dimension that shows all of an embedding, or what it was made for."""
    for name in ("max_size", "taps", "reaches"):
        found = getattr(position, name, None)
        if isinstance(found, tuple):
            return tuple(length + 1 for length in found) if name == "reaches" else found
    return (LENGTHS[dims],) * dims


def draw(panels: Sequence[Panel], path: Path, title: str) -> None:
    """One row for each embedding, as a PNG."""
    heights = [2.3 if len(panel.origin) == 1 else 2.6 for panel in panels]
    style: Any = {"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.spines.top": False}
    with mpl.rc_context(style | {"axes.spines.right": False}):
        figure = Figure(figsize=(12, sum(heights) + 0.5), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
        rows = figure.subfigures(len(panels), 1, height_ratios=heights, squeeze=False)
        for row, panel in zip(rows.flat, panels, strict=True):
            row.suptitle(panel.title, x=0.01, ha="left", fontsize=10, parse_math=False)
            draw_line(row, panel) if len(panel.origin) == 1 else draw_image(row, panel)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def draw_line(figure: Any, panel: Panel) -> None:
    """R of a sequence by key channel and offset, and its energy by offset."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    edges = bins(panel.values.shape[1], panel.origin[0])
    starts = edges[:-1]
    widest = np.maximum.reduceat(panel.values, starts, 1)
    deepest = np.minimum.reduceat(panel.values, starts, 1)
    shown = np.where(widest >= -deepest, widest, deepest)  # (K, columns)
    places = edges - panel.origin[0] - 0.5
    channels = np.arange(len(shown) + 1) - 0.5
    mesh = left.pcolormesh(places, channels, shown, cmap=SIGNED, norm=signed(panel.values), rasterized=True)
    left.set(ylabel="key channel", title="R")
    left.invert_yaxis()
    left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    add_colours(figure, mesh, left)

    squares = np.square(panel.values, dtype=np.float64).mean(0)
    energy = np.add.reduceat(squares, starts) / np.diff(edges)
    near = within(squares, panel.origin)
    for distance in near.values():
        right.axvspan(-distance - 0.5, min(distance + 0.5, places[-1]), color=SHADE, alpha=0.16, linewidth=0)
    right.stairs(np.where(energy > 0, energy, np.nan), places, color=LINE, linewidth=1.5)
    if flat(squares):
        right.set_ylim(bottom=0)
    else:
        right.set_yscale("log")
        least = energy[energy > 0].min(initial=energy.max())
        right.set_ylim(max(least, energy.max() * 1e-10) / 2, energy.max() * 3)
    right.set_title(described(near, "mean R²"))
    for axes, most in ((left, 9), (right, 6)):
        axes.set_xlabel("offset m − n")
        axes.set_xlim(places[0], places[-1])
        if len(squares) > 2 * 64:
            axes.set_xscale("symlog", linthresh=8, linscale=0.8)
            axes.xaxis.set_major_locator(FixedLocator(decades(places[0], places[-1], most)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace("-", "−"))
            axes.xaxis.set_minor_locator(FixedLocator([]))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(most, integer=True))


def draw_image(figure: Any, panel: Panel) -> None:
    """R of images for the first key channels, and the energy over both offsets."""
    rows, columns = panel.values.shape[1:]
    extent = (
        -panel.origin[1] - 0.5,
        columns - panel.origin[1] - 0.5,
        rows - panel.origin[0] - 0.5,
        -panel.origin[0] - 0.5,
    )
    count = min(IMAGES, len(panel.values))
    left, right = figure.subfigures(1, 2, width_ratios=(3, 1.2))
    tiles = left.subplots(2, -(-count // 2), squeeze=False)
    for index, axes in enumerate(tiles.flat):
        if index >= count:
            axes.set_visible(False)
            continue
        image = axes.imshow(panel.values[index], cmap=SIGNED, norm=signed(panel.values), interpolation="nearest")
        axes.set_title(f"{index}", fontsize=8, pad=2)
        axes.set(xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(True)
    add_colours(left, image, tiles)
    squares = np.square(panel.values, dtype=np.float64).mean(0)
    axes = right.subplots()
    most = max(squares.max(), np.finfo(np.float64).tiny)
    norm: Any = {"vmin": 0, "vmax": most} if flat(squares) else {"norm": LogNorm(max(squares.min(), most * 1e-6), most)}
    shade = axes.imshow(squares, cmap=ENERGY, extent=extent, interpolation="nearest", **norm)
    right.colorbar(shade, ax=axes, fraction=0.05)
    axes.set(xlabel="columns m − n", ylabel="rows m − n")
    axes.set_title(described(within(squares, panel.origin), "mean R²").replace(" · ", "\n"), fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def bins(count: int, origin: int) -> np.ndarray:
    """Edges of columns: one for each offset, or, where they are many, of widths that grow with the distance."""
    if count <= COLUMNS:
        return np.arange(count + 1)
    farthest = max(origin, count - 1 - origin)
    sides = 2 if origin < count - 1 else 1
    distances = np.unique(np.geomspace(1, farthest + 1, COLUMNS // sides).astype(int))  # 1, 2, 3, … then sparser
    edges = np.concatenate([origin + 1 - distances, origin + distances, [0, count]])
    return np.unique(np.clip(edges, 0, count))


def within(squares: np.ndarray, origin: tuple[int, ...]) -> dict[float, int]:
    """The smallest distance, in every dimension, within which half and nine tenths of the energy are."""
    distances = np.zeros(squares.shape, dtype=int)
    for axis, first in enumerate(origin):
        shape = [-1 if other == axis else 1 for other in range(squares.ndim)]
        distances = np.maximum(distances, np.abs(np.arange(squares.shape[axis]) - first).reshape(shape))
    running = np.bincount(distances.ravel(), squares.ravel()).cumsum()
    return {share: int(np.searchsorted(running, share * running[-1])) for share in (0.5, 0.9)}


def described(near: dict[float, int], what: str) -> str:
    """'mean R² · half of it within 3, 90 % within 41'."""
    return f"{what} · half within {near[0.5]:,}, 90 % within {near[0.9]:,}"


def decades(first: float, last: float, most: int) -> list[float]:
    """0 and powers of ten with either sign, as far as there are offsets; every second or third if they are many."""
    for step in (1, 2, 3):
        powers = [10.0**power for power in range(step, 9, step)]
        ticks = [value for value in [*(-power for power in reversed(powers)), 0.0, *powers] if first <= value <= last]
        if len(ticks) <= most:
            break
    return ticks


def flat(squares: np.ndarray) -> bool:
    """Whether a linear scale shows all of the energies."""
    return bool(squares.max() <= FLAT * squares.min())


def signed(values: np.ndarray) -> Any:
    """Colours of both signs: linear, or, where R falls far, linear near 0 and then logarithmic over some decades."""
    most = float(np.abs(values).max()) or 1.0
    if flat(np.square(values).mean(0)):
        return Normalize(-most, most)
    return SymLogNorm(linthresh=most * 10.0**-DECADES, linscale=0.3, vmin=-most, vmax=most)


def add_colours(figure: Any, image: Any, axes: Any) -> None:
    """A colour bar with few labels."""
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    if not isinstance(image.norm, SymLogNorm):
        return
    most = float(image.norm.vmax or 0)
    ticks = [sign * most * 10.0**-power for sign in (-1, 1) for power in (0, 1, 2)]
    bar.set_ticks(sorted([0.0, *ticks]))
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.1g}".replace("-", "−"))
    bar.ax.minorticks_off()


if __name__ == "__main__":
    sys.exit(main())
