"""What a position of a picture takes from all others: python scripts/draw_receptive.py SOURCE PICTURE [--at ROW COLUMN]

SOURCE is a checkpoint of a training (best.ckpt, last.ckpt) or a folder of save_pretrained, of a network for pictures.
A lambda layer is a sum over positions m with weights that depend on the query n,

    y_n = Σ_m (wᶜ[n, m] + wᵖ[n, m]) V_m        wᶜ[n, m] = q_n · K̄_m (content)    wᵖ[n, m] = q_n · R[m − n] (position)

and these weights are drawn over the picture, for each layer (a row) and each head (a column), for the query at --at.
The query is framed; a dashed frame is the scope of its position lambda. Colours of a row are on one scale for content,
and on another one for position.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from draw_positions import SIGNED
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn

import lambda_seq
from lambda_seq.functional.reference import normalise
from lambda_seq.inference.pictures import Decoder
from lambda_seq.layers import LambdaLayer2d
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.networks import network_of

MOST = 6  # layers that are drawn if none are chosen
FADED = 0.3  # of the picture's contrast behind the weights
FRAME, SCOPE = "#000000", "#444444"


@dataclass(frozen=True)
class Weights:
    """The weights of one query in a layer, over all positions: content and position (U, H, *N), None for none."""

    content: Float[Tensor, "U H Y X"] | None
    position: Float[Tensor, "U H Y X"] | None
    query: tuple[int, int]
    scope: tuple[int, int] | None  # rows and columns of the position lambda

    def output(self, value: Float[Tensor, "U Y X V"]) -> Float[Tensor, "H V"]:
        """What the layer computes at the query: weights times values, summed."""
        parts = [part for part in (self.content, self.position) if part is not None]
        return torch.einsum("uhyx,uyxv->hv", torch.stack(parts).sum(0), value)


@dataclass(frozen=True)
class Panel:
    """A layer's name and weights."""

    title: str
    weights: Weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 0, or 2 for what cannot be drawn, saying why."""
    options = parser().parse_args(arguments)
    try:
        network, facts, labels = load(options.source)
        pixels = read(options.picture, network, facts)
        panels, logits = collect(network, standardised(pixels, facts), tuple(options.at), options.layers)
        draw(panels, pixels, options.out, options.title or titled(options.picture, logits, labels), options.intra)
    except (OSError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(panels)} layers")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = found.add_argument
    add("source", type=Path, help="checkpoint, or folder of save_pretrained")
    add("picture", type=Path, help="a picture file")
    add("--at", type=float, nargs=2, default=(0.5, 0.5), metavar=("ROW", "COLUMN"), help="query, 0 to 1 (the middle)")
    add("--layers", type=int, nargs="+", help=f"which, from 0, or from −1 backwards (up to {MOST}, evenly spaced)")
    add("--intra", type=int, default=0, help="which of the values, of networks with dim_intra (%(default)s)")
    add("--out", type=Path, default=Path("receptive.png"), help="file to write (%(default)s)")
    add("--title", help="above the picture; default: its name and what the network takes it for")
    return found


def load(source: Path) -> tuple[nn.Module, dict[str, Any], list[str] | None]:
    """The network with its weights, the facts of its pictures (mean, std, image_size, …), and its labels.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is no checkpoint of a task, or the network takes no pictures.
    """
    if source.is_dir():
        network = lambda_seq.from_pretrained(source)
        facts, labels = dict(network.preprocessing or {}), network.labels
    elif not source.is_file():
        raise FileNotFoundError(f"{source}: no such file or folder; give a .ckpt, or a folder of save_pretrained")
    else:
        try:
            checkpoint = torch.load(source, map_location="cpu", weights_only=True)
            hparams, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
            network = network_of(checkpoint)
        except Exception as error:
            raise ValueError(f"{source} is no checkpoint of a task of lambda_seq ({error})") from error
        prefix = "network."
        network.load_state_dict({name[len(prefix) :]: one for name, one in weights.items() if name.startswith(prefix)})
        known = Facts.from_dict(hparams["facts"])
        facts, labels = known.preparation(), known.labels
    if network.input_kind != "image":
        raise ValueError(f"{source}: {network.name} takes {network.input_kind}, no pictures")
    missing = [name for name in ("mean", "std", "in_channels", "image_size") if name not in facts]
    if missing:
        raise ValueError(f"{source} does not say how its pictures were prepared: {', '.join(missing)} missing")
    return network.eval(), facts, labels


def read(picture: Path, network: nn.Module, facts: dict[str, Any]) -> np.ndarray:
    """Pixels (C, H, W) of a picture, of the size and channels that the network was trained on."""
    height, width = facts["image_size"]
    try:
        with Image.open(picture) as image:
            ground = facts.get("background", "white")
            return Decoder((height, width), facts["in_channels"], ground, facts.get("full_scale"))(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{picture}: not a readable picture ({error})") from error


def standardised(pixels: np.ndarray, facts: dict[str, Any]) -> Float[Tensor, "1 C H W"]:
    """The network's input."""
    mean, std = (torch.tensor(facts[name], dtype=torch.float32)[:, None, None] for name in ("mean", "std"))
    return ((torch.from_numpy(pixels.copy()) - mean) / std)[None]


@torch.no_grad()
def collect(
    network: nn.Module, x: Float[Tensor, "1 C H W"], at: tuple[float, ...], chosen: Sequence[int] | None = None
) -> tuple[list[Panel], Tensor]:
    """Weights of the chosen lambda layers for a picture, and the network's logits.

    Args:
        network: in evaluation mode.
        x: one picture.
        at: of the query, row and column, as parts of the picture.
        chosen: numbers of layers; None for some of them.

    Raises:
        ValueError: no lambda layers, no such layer, or a query outside the picture.
    """
    if not all(0 <= part <= 1 for part in at):
        raise ValueError(f"--at {' '.join(map(str, at))}: expected parts of height and width, from 0 to 1")
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, LambdaLayer2d)]
    if not layers:
        raise ValueError("the network has no lambda layers: there is nothing to draw")
    if chosen is None:
        chosen = np.unique(np.linspace(0, len(layers) - 1, min(MOST, len(layers))).round().astype(int)).tolist()
    for index in chosen:
        if not -len(layers) <= index < len(layers):
            raise ValueError(f"--layers {index}: the network has {len(layers)}, 0 to {len(layers) - 1}")
    inputs: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[module] = given[0]

    hooks = [module.register_forward_pre_hook(note) for _, module in layers]
    try:
        logits = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not logits.isfinite().all():
        raise ValueError("the network's output for this picture is not finite: was it trained?")
    panels = []
    for index in chosen:
        name, layer = layers[index]
        entering = inputs[layer]
        query = tuple(min(int(part * size), size - 1) for part, size in zip(at, entering.shape[2:], strict=True))
        found, _ = weights_at(layer, entering, (query[0], query[1]))
        panels.append(Panel(f"{name.removesuffix('.mix.layer')} · {entering.shape[2]} × {entering.shape[3]}", found))
    return panels, logits


def weights_at(
    layer: LambdaLayer2d, x: Float[Tensor, "1 C Y X"], query: tuple[int, int]
) -> tuple[Weights, Float[Tensor, "U Y X V"]]:
    """The weights of a query (row, column), and the values that they weigh."""
    size = (x.shape[2], x.shape[3])
    queries, key, value, embedding = layer._inputs(x.movedim(1, -1), None, size)
    q = queries[0, :, query[0], query[1]]  # (H, K)
    content = position = scope = None
    if key is not None:
        keys = key[0].flatten(1, 2)  # (U, Y·X, K)
        keys = normalise(keys, keys.new_ones(1, dtype=torch.bool), layer.key_norm)
        content = torch.einsum("hk,umk->uhm", q, keys).unflatten(2, size)
    if embedding is not None:
        taps = (embedding.shape[2], embedding.shape[3])
        whole = torch.einsum("hk,ukyx->uhyx", q, embedding)  # (U, H, RY, RX), of each offset
        position = whole.new_zeros(*whole.shape[:2], *size)
        # Offset m − n is at index m − n + (R − 1) / 2
        inside, offsets = [], []
        for place, tap, length in zip(query, taps, size, strict=True):
            start = place - tap // 2
            inside.append(slice(max(start, 0), min(start + tap, length)))
            offsets.append(slice(inside[-1].start - start, inside[-1].stop - start))
        position[:, :, inside[0], inside[1]] = whole[:, :, offsets[0], offsets[1]]
        scope = taps if taps[0] < 2 * size[0] - 1 or taps[1] < 2 * size[1] - 1 else None
    return Weights(content, position, query, scope), value[0]


def titled(picture: Path, logits: Tensor, labels: Sequence[str] | None) -> str:
    """'shoe.png: sneaker 97.3 %'."""
    chances = logits.float().softmax(-1)[0]
    best = int(chances.argmax())
    return f"{picture.name}: {labels[best] if labels else f'class {best}'} {100 * float(chances[best]):.1f} %"


def draw(panels: Sequence[Panel], pixels: np.ndarray, path: Path, title: str, intra: int = 0) -> None:
    """A row for each layer: the picture with the query, content weights by head, position weights by head."""
    shape = next(part for part in (panels[0].weights.content, panels[0].weights.position) if part is not None).shape
    if not 0 <= intra < shape[0]:
        raise ValueError(f"--intra {intra}: the network has {shape[0]} values per position, 0 to {shape[0] - 1}")
    heads, (height, width) = shape[1], pixels.shape[1:]
    shown = np.repeat(pixels, 3, 0) if len(pixels) == 1 else pixels
    picture = shown.transpose(1, 2, 0) / 255  # (H, W, 3)
    kinds = [kind for kind in ("content", "position") if any(getattr(one.weights, kind) is not None for one in panels)]
    tile, bar, gap, line, top = 1.25, 0.55, 0.2, 0.3, 0.6  # inches
    tall = tile * height / width
    columns = 1 + heads * len(kinds)
    size = (0.15 + columns * tile + len(kinds) * (bar + gap), top + len(panels) * (tall + line) + 0.12)
    with mpl.rc_context({"font.size": 8}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(figsize=size, dpi=130)
        FigureCanvasAgg(figure)
        plain: Any = {"parse_math": False, "va": "top"}
        figure.text(0.15 / size[0], 1 - 0.1 / size[1], title, fontsize=11, fontweight="bold", **plain)

        def place(left: float, row: int, wide: float, high: float = 1.0) -> Any:
            bottom = size[1] - top - row * (tall + line) - line - tall
            return figure.add_axes((left / size[0], bottom / size[1], wide / size[0], high * tall / size[1]))

        for row, panel in enumerate(panels):
            above = size[1] - top - row * (tall + line) - 0.09
            figure.text(0.15 / size[0], above / size[1], panel.title, fontsize=8.5, **plain)
            axes = place(0.15, row, tile - 0.06)
            axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
            _finish(axes, panel.weights, width, height)
            left = 0.15 + tile + gap / 2
            for kind in kinds:
                if row == 0:
                    figure.text(
                        left / size[0], 1 - 0.42 / size[1], f"{kind.capitalize()}, by head", fontsize=10, **plain
                    )
                left = _group(place, panel.weights, kind, row, left, picture, intra, (tile, bar)) + gap
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _group(
    place: Any,
    weights: Weights,
    kind: str,
    row: int,
    left: float,
    picture: np.ndarray,
    intra: int,
    sizes: tuple[float, float],
) -> float:
    """The heads of one kind of lambda and their colours; returns where they end."""
    (tile, bar), (height, width) = sizes, picture.shape[:2]
    every = weights.content if kind == "content" else weights.position
    heads = (weights.content if every is None else every).shape[1]  # type: ignore[union-attr]
    if every is None:
        return left + heads * tile + bar
    values = every[intra].numpy()
    most = float(np.abs(values).max()) or 1.0
    colours = ScalarMappable(Normalize(-most, most), SIGNED)
    grey = 1 - FADED + FADED * picture.mean(2, keepdims=True)
    for head, one in enumerate(values):
        axes = place(left + head * tile, row, tile - 0.06)
        axes.imshow(np.repeat(grey, 3, 2), extent=(0, width, height, 0), interpolation="nearest")
        layer = colours.to_rgba(one)
        layer[..., 3] = np.clip(np.abs(one) / most, 0, 1) ** 0.5 * 0.92  # what is near 0 lets the picture through
        axes.imshow(layer, extent=(0, width, height, 0), interpolation="nearest")
        _finish(axes, weights, width, height, scoped=kind == "position")
    strip = place(left + heads * tile + 0.02, row, 0.09)
    strip.figure.colorbar(colours, cax=strip)
    strip.set_yticks([-most, 0, most], [f"−{short(most)}", "0", short(most)], fontsize=7)
    strip.tick_params(length=2, pad=2)
    return left + heads * tile + bar


def short(number: float) -> str:
    """0.42, 7.2e−4 or 1.4e15: two digits in few characters."""
    if 0.01 <= number < 100:
        return f"{number:.2g}"
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits}e{int(exponent)}".replace("-", "−")


def _finish(axes: Any, weights: Weights, width: int, height: int, scoped: bool = False) -> None:
    """Frame the query, and the scope around it; no ticks."""
    part = weights.content if weights.content is not None else weights.position
    rows, columns = part.shape[2:]  # type: ignore[union-attr]
    tall, wide = height / rows, width / columns
    row, column = weights.query
    style: Any = {"fill": False, "clip_on": True}
    if scoped and weights.scope is not None:
        above, before = (taps // 2 for taps in weights.scope)
        corner = ((column - before) * wide, (row - above) * tall)
        box = Rectangle(corner, weights.scope[1] * wide, weights.scope[0] * tall, **style)
        box.set(edgecolor=SCOPE, linewidth=0.8, linestyle="--")
        axes.add_patch(box)
    for colour, thick in (("white", 2.4), (FRAME, 1.1)):
        axes.add_patch(Rectangle((column * wide, row * tall), wide, tall, edgecolor=colour, linewidth=thick, **style))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set(color="#BBBBBB", linewidth=0.6)


if __name__ == "__main__":
    sys.exit(main())
