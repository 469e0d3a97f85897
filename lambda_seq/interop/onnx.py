"""Networks as ONNX files, equal in ONNX Runtime, of any batch and length: `export_onnx`.

Beside the file lies a description in JSON: names, types and sizes of inputs and outputs, and all that a caller has to
know of them. It needs the packages of the extra `onnx`.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lambda_seq.interop.exporting import Call, call_of, naming
from lambda_seq.models.model import Model
from lambda_seq.models.registry import class_name

INSTALL = 'pip install "lambda-seq[onnx]"'
LARGEST = 2**30  # bytes of weights up to which they are in the file itself, as protocol buffers hold 2 GiB
MOST = 1e-4  # of the greatest output, by which outputs may differ
LENGTHS = (7, 64, 1009)  # of checks: none is traced, and none a multiple of what is cut into chunks, but one
STEPS = 5  # of checks of language models


@dataclass(frozen=True)
class Exported:
    """What an export has left.

    Attributes:
        file: the ONNX file.
        description: the JSON file beside it.
        tokenizer: tokenizer.json of the model, beside it; None if it has none.
        difference: the greatest difference from torch's outputs, of the greatest of these; None if not checked.
        checked: sizes of the inputs that were compared, in words.
    """

    file: Path
    description: Path
    tokenizer: Path | None
    difference: float | None
    checked: str


def export_onnx(
    model: Model,
    file: str | os.PathLike[str],
    *,
    step: bool | None = None,
    mask: bool | None = None,
    image_size: int | Sequence[int] | None = None,
    check: bool | None = None,
) -> Exported:
    """Write a network as an ONNX file, and beside it what a caller has to know, as JSON.

        export_onnx(model, "model.onnx")
        session = onnxruntime.InferenceSession("model.onnx")
        logits, answers = session.run(None, {"x": ids, "mask": ids > 0})

    Args:
        model: in evaluation mode, in float32.
        file: ends in .onnx; replaced if there is one.
        step, mask, image_size: as of `interop.exporting.export_program`.
        check: whether ONNX Runtime has to give what torch gives, at sizes that were not traced; None for True where it
            is installed.

    Raises:
        TypeError, ValueError: as `export_program`, or the file's name does not end in .onnx.
        ModuleNotFoundError: packages of the extra `onnx` are missing.
        RuntimeError: the outputs differ by more than 1e-4 of the greatest; nothing is written.
    """
    file = Path(file).expanduser()
    if file.suffix.lower() != ".onnx":
        raise ValueError(f"file={str(file)!r}: expected a name that ends in .onnx; use {file.name or 'model'}.onnx")
    needed("onnx", "onnxscript", *(["onnxruntime"] if check else []))
    call = call_of(model, step=step, mask=mask, image_size=image_size)
    compares = find_spec("onnxruntime") is not None if check is None else check
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        dir=file.parent, prefix=f".{file.stem}-"
    ) as folder:  # files have their names once all is well
        written = Path(folder) / file.name
        opset = _write(model, call, written)
        found, checked = difference(call, written) if compares else (None, "not checked")
        if found is not None and not found < MOST:
            raise RuntimeError(
                f"{file}: ONNX Runtime's outputs differ from torch's by {found:.3g} of the greatest ({checked}), more "
                f"than {MOST}: it is not written; report it with the model's options"
            )
        tokenizer = None
        if model.tokenizer is not None:
            tokenizer = written.with_suffix(".tokenizer.json")
            tokenizer.write_text(model.tokenizer.to_str(pretty=True), encoding="utf-8")
        about = description(model, call) | {"opset": opset, "tokenizer": tokenizer and tokenizer.name}
        about["difference"] = found
        text = json.dumps(about, indent=2, ensure_ascii=False)
        written.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        for made in Path(folder).iterdir():
            made.replace(file.parent / made.name)
    beside = tokenizer and file.parent / tokenizer.name
    return Exported(file, file.with_suffix(".json"), beside, found, checked)


def _write(model: Model, call: Call, file: Path) -> int:
    """Write the ONNX file; which version of ONNX's operators it has."""
    with _quiet():
        recorded = call.program()
        with naming(call.name):
            program = torch.onnx.export(
                recorded, input_names=list(call.inputs), output_names=call.outputs, verbose=False
            )
        assert program is not None
        program.rename_axes(
            {
                one.shape[axis]: name
                for one in program.model.graph.inputs
                for axis, name in call.dynamic[one.name].items()
            }
        )
        program.save(file, external_data=_bytes(model) > LARGEST)
    return int(program.model.opset_imports[""])


def description(model: Model, call: Call) -> dict[str, Any]:
    """What a caller has to know, of what JSON holds.

    Entries: `model`; `takes`; `inputs`, each a name, a dtype, a shape with the names of sizes that are free, and of a
    state what it holds in the beginning; `outputs`; `most`, the largest of free sizes; `answers`, in words; `labels`;
    `preprocessing`.
    """
    from lambda_seq import __version__

    inputs = []
    for name, example in call.inputs.items():
        shape = [call.dynamic[name].get(axis, size) for axis, size in enumerate(example.shape)]
        entry: dict[str, Any] = {"name": name, "dtype": _dtype(example), "shape": shape}
        if name in call.initial:
            entry["initial"] = str(call.initial[name]) if np.isinf(call.initial[name]) else call.initial[name]
        inputs.append(entry)
    return {
        "library": "lambda_seq",
        "library_version": __version__,
        "model": model.name or class_name(type(model)),
        "takes": model.input_kind,
        "inputs": inputs,
        "outputs": call.outputs,
        "most": call.most,
        "answers": model.objective.said,
        "labels": model.labels,
        "preprocessing": model.preprocessing,
    }


def difference(call: Call, file: Path) -> tuple[float, str]:
    """The greatest difference of ONNX Runtime's outputs from torch's, of the greatest of these, and for what sizes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    if call.initial:
        return _difference_of_steps(call, session), f"{STEPS} tokens, batch 3"
    most = call.most.get("length")
    free = sorted({name for axes in call.dynamic.values() for name in axes.values()} - {"batch"})
    sizes = [length for length in LENGTHS if most is None or length <= most] or [most or 1]
    found = 0.0
    for size in sizes if free else sizes[:1]:
        inputs = resized(call, 3, size)
        found = worst(found, *differences(call, session, inputs))
    said = f"{' × '.join(free)} {', '.join(map(str, sizes))}, batch 3" if free else "batch 3"
    return found, said


def resized(call: Call, batch: int, size: int, seed: int = 1) -> dict[str, Tensor]:
    """Inputs like the examples, of another batch and size: other numbers, and of each mask a row that is shorter."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, example in call.inputs.items():
        free = {axis: batch if free == "batch" else size for axis, free in call.dynamic[name].items()}
        shape = [free.get(axis, fixed) for axis, fixed in enumerate(example.shape)]
        if example.dtype == torch.bool:
            real = torch.ones(shape, dtype=torch.bool)
            real[-1, (shape[1] + 1) // 2 :] = False
            made[name] = real
        elif example.dtype.is_floating_point:
            made[name] = torch.randn(shape, generator=generator, dtype=example.dtype)
        else:
            made[name] = torch.randint(int(example.max()) + 1, shape, generator=generator, dtype=example.dtype)
    return {name: tensor.to(call.inputs[name].device) for name, tensor in made.items()}


def _difference_of_steps(call: Call, session: Any) -> float:
    """Of some steps from the initial state, each going on from ONNX Runtime's and from torch's own."""
    drawn = resized(call, 3, 1)
    ours = {name: torch.full_like(drawn[name], value) for name, value in call.initial.items()}
    ours = {"tokens": drawn["tokens"], **ours}
    theirs = dict(ours)
    found = 0.0
    for step in range(STEPS):
        ours["tokens"] = theirs["tokens"] = resized(call, 3, 1, seed=step)["tokens"]
        expected, outputs = _torch(call, ours), _onnx(session, theirs)
        found = worst(found, relative(outputs[0], expected[0]))
        names = list(call.initial)
        ours |= dict(zip(names, expected[1:], strict=True))
        theirs |= dict(zip(names, outputs[1:], strict=True))
    return found


def differences(call: Call, session: Any, inputs: Mapping[str, Tensor]) -> list[float]:
    """Of each output of ONNX Runtime from torch's, of the greatest of this; where it is real, if there is a mask."""
    pairs = zip(_onnx(session, inputs), _torch(call, inputs), strict=True)
    real = inputs.get("mask")
    return [relative(*(one if real is None else _real(one, real) for one in pair)) for pair in pairs]


def _real(output: Tensor, mask: Tensor) -> Tensor:
    """Of an output for each position, or frame, that of real ones."""
    if output.ndim < 3:
        return output
    stride = -(-mask.shape[1] // output.shape[1])
    return output[mask[:, ::stride].cpu()]


def worst(*differences: float) -> float:
    """The greatest, NaN if one is; Python's `max` lets it go."""
    return float(np.max(differences))


def relative(found: Tensor, expected: Tensor) -> float:
    """The greatest difference, of the greatest of what is expected."""
    wide = expected.double()
    return ((found.double() - wide).abs().max() / wide.abs().max().clamp_min(1e-30)).item()


def _torch(call: Call, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [output.cpu() for output in call.module(*inputs.values())]


def _onnx(session: Any, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    given = {name: tensor.cpu().numpy() for name, tensor in inputs.items()}
    return [torch.from_numpy(output) for output in session.run(None, given)]


def needed(*packages: str) -> None:
    """Raise ModuleNotFoundError, with the remedy, unless these packages are installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"an export to ONNX needs {', '.join(missing)}: {INSTALL}", name=missing[0])


def _bytes(model: Model) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _dtype(tensor: Tensor) -> str:
    """As NumPy calls it."""
    return str(tensor.dtype).removeprefix("torch.")


@contextmanager
def _quiet() -> Any:
    """Without what the exporter and its packages say of themselves."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
