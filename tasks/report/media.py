"""Inputs as a page shows them without any other file: pictures, clips and waveforms as data in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

EDGE = 224  # pixels of the greater edge of a picture, to which greater ones are made smaller
LOSSLESS = 96 * 96  # pixels of a picture, above which it is compressed
SECONDS = 5.0  # of a clip that can be played
COLUMNS = 160  # of a waveform, or steps of a series
CHANNELS = 3  # of a series
SYMBOLS = 160  # token ids without a text that are shown


def picture(pixels: Tensor) -> dict[str, Any]:
    """A picture (C, H, W) of bytes: "source", "width", "height" of the picture that was read."""
    _, height, width = pixels.shape
    array = pixels.movedim(0, -1).numpy()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    image.thumbnail((EDGE, EDGE))
    kind = "png" if image.width * image.height <= LOSSLESS else "jpeg"
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 85} if kind == "jpeg" else {}))
    return {"source": source(stream.getvalue(), f"image/{kind}"), "width": width, "height": height}


def clip(samples: Tensor, rate: int) -> dict[str, Any]:
    """A clip (N) of samples from −1 to 1: "source" of its first seconds, "seconds" of all, and its "wave" as SVG."""
    played = samples[: round(SECONDS * rate)].float().clamp(-1, 1).numpy()
    stream = io.BytesIO()
    soundfile.write(stream, played, rate, format="WAV", subtype="PCM_16")
    return {
        "source": source(stream.getvalue(), "audio/wav"),
        "seconds": len(samples) / rate,
        "played": len(played) / rate,
        "wave": wave(played),
    }


def wave(samples: np.ndarray) -> str:
    """Path of the outline of a waveform, in a box of `COLUMNS` by 40."""
    parts = [part for part in np.array_split(samples, COLUMNS) if len(part)]
    most = max(float(np.abs(samples).max(initial=0)), 1e-6)
    return "".join(
        f"M{column} {20 - 19 * part.max() / most:.1f}V{20.5 - 19 * part.min() / most:.1f}"
        for column, part in enumerate(parts)
    )


def series(x: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """A series (N, C): "steps"; "channels", the name, range and "course" as SVG of some; "points" of these, "more"."""
    found, every = [], max(len(x) // COLUMNS, 1)
    for name, channel in list(zip(names, x.float().numpy().T, strict=True))[:CHANNELS]:
        known = channel[~np.isnan(channel)]
        least, most = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        scale = (most - least) or 1.0
        path, begins = "", True
        for step, number in enumerate(channel[::every]):
            if not np.isnan(number):  # a gap stays empty
                path += f"{'M' if begins else 'L'}{step} {39 - 38 * (number - least) / scale:.1f}"
            begins = bool(np.isnan(number))
        found.append({"name": name, "course": path, "least": least, "most": most})
    return {"steps": len(x), "channels": found, "points": len(x[::every]), "more": x.shape[1] - len(found)}


def shown(x: Tensor, facts: Any, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """An input as a page shows it, "kind" and what belongs to it.

    Args:
        x: the input without its padding.
        facts: of its data.
        size: height and width of pictures whose pixels are in reading order.
    """
    if x.ndim == 3 and x.dtype == torch.uint8 and len(x) in (1, 3):
        return {"kind": "picture", **picture(x)}
    if facts.audio is not None and x.ndim == 1:
        return {"kind": "clip", **clip(x, facts.audio.sampling_rate)}
    if facts.series is not None:
        return {"kind": "series", **series(x, facts.series.channels)}
    if facts.pixels is not None and size is not None:
        return {"kind": "picture", **picture(x.T.unflatten(1, size))}
    if x.ndim == 1 and facts.tokens is None:
        more = " …" if len(x) > SYMBOLS else ""
        return {"kind": "symbols", "text": " ".join(map(str, x[:SYMBOLS].tolist())) + more}
    return {"kind": "none"}


def source(content: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
