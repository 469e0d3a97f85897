"""Networks as programs of torch's ordinary operations, for any batch and length: `torch.export`, and what follows.

Our operators are recorded as single nodes and then take their plain form, `functional.plain`, so that whatever reads a
`torch.export.ExportedProgram` can run it without this library.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lambda_seq.functional.plain import decompositions
from lambda_seq.functional.states import names_of, taken_apart
from lambda_seq.layers import UNSHARDED, checks
from lambda_seq.models.model import Model
from lambda_seq.models.sequence.blocks import keeps
from lambda_seq.models.sequence.generation import GenerativeModel
from lambda_seq.models.sequence.language_model import LambdaLM
from lambda_seq.models.sequence.streaming import LanguageModelState

BATCH, FRAMES = 2, 1300  # of the inputs that are traced; long enough that no part of them has a single entry


@dataclass
class Call:
    """A function of tensors to be exported, with what is said of its inputs and outputs.

    Attributes:
        name: what it is, for messages.
        module: computes it.
        inputs: by name, as examples.
        dynamic: of each input, by name, the dimensions that may be of any size, and what they are called.
        outputs: names.
        initial: what inputs that are a state hold in the beginning, by name: a number that fills them.
        most: the largest sizes of dynamic dimensions, by name, where there are such.
        least: the smallest sizes for which a program of torch says that it is right, likewise. Such programs take a
            size of one for another kind of input; where nobody asks, smaller ones are right as well.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]]
    outputs: list[str]
    initial: dict[str, float] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)

    def program(self) -> ExportedProgram:
        """It, recorded, in ordinary operations.

        Raises:
            ValueError: something in it does not export; says what torch says.
        """
        free = {name for axes in self.dynamic.values() for name in axes.values()}
        dims = {name: Dim(name, min=self.least.get(name), max=self.most.get(name)) for name in free}
        shapes = [{axis: dims[name] for axis, name in self.dynamic[key].items()} for key in self.inputs]
        arguments = tuple(self.inputs.values())
        with torch.no_grad():
            self.module(*arguments)  # constants are brought to the device now, and kept, not while it is recorded
            with naming(self.name):
                program = torch.export.export(
                    self.module,
                    arguments,
                    dynamic_shapes=(tuple(shapes),),
                    prefer_deferred_runtime_asserts_over_guards=True,
                )
                return to_plain(program)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Errors of exporters, which are of many kinds, as a ValueError that says what does not export, and the cause."""
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise ValueError(f"{what} does not export: {said}") from error


def to_plain(program: ExportedProgram) -> ExportedProgram:
    """An exported program in which our operators are written out in torch's own; equal, for any size as before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)  # torch's own use of it
        return program.run_decompositions(decompositions())


def export_program(
    model: Model, *, step: bool | None = None, mask: bool | None = None, image_size: int | Sequence[int] | None = None
) -> ExportedProgram:
    """A network as an `ExportedProgram` of torch's ordinary operations, of any batch, and length or size.

        program = export_program(model)
        torch.export.save(program, "model.pt2")
        logits, answers = program.module()(x, mask)

    Args:
        model: in evaluation mode, in float32.
        step: of a language model: True for one step, (tokens, *state) -> (logits, *state), False for whole sequences;
            None for True with language models. Others have no step.
        mask: whether there is an input for which positions are real; None for True with sequences, False with pictures.
        image_size: of pictures, an int or (H, W); None for what the model says, or any size where it says none.

    Returns:
        The program, whose inputs and outputs `call_of` names.

    Raises:
        TypeError: no network of the registry, or an option of another type.
        ValueError: a model in training mode, in another dtype, or spread over processes; an option that does not fit;
            or a part of it that does not export, by name.
    """
    return call_of(model, step=step, mask=mask, image_size=image_size).program()


def call_of(
    model: Model, *, step: bool | None = None, mask: bool | None = None, image_size: int | Sequence[int] | None = None
) -> Call:
    """What is exported of a network; arguments and errors as of `export_program`."""
    _check(model, step, mask)
    if isinstance(model, GenerativeModel) and step in (None, True):
        if mask:
            raise ValueError("mask=True with step=True: every position of a stream is real; leave it out")
        return _step(model)
    if step:
        raise ValueError(f"step=True: a {type(model).__name__} is no language model, which has steps; leave it out")
    if image_size is not None and model.input_kind != "image":
        raise ValueError(f"image_size={image_size}: the model takes {model.input_kind}, no pictures; leave it out")
    if model.input_kind == "image":
        return _of_pictures(model, bool(mask), image_size)
    return _of_sequences(model, mask in (None, True))


def _check(model: Any, step: Any, mask: Any) -> None:
    """Raise TypeError or ValueError unless the model can be exported, as far as that is known beforehand."""
    if not isinstance(model, Model):
        raise TypeError(
            f"model is {type(model).__name__}: expected a network of the registry; other modules go through "
            "torch.export.export, and then through interop.exporting.to_plain"
        )
    checks.flags(**{name: value for name, value in (("step", step), ("mask", mask)) if value is not None})
    if model.training:
        raise ValueError("model is in training mode: call model.eval() first")
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}: expected torch.float32; use model.float()")
        if type(parameter.data) is not Tensor or parameter.is_meta:
            kind = type(parameter.data).__name__
            raise ValueError(f"{name} is a {kind} on {parameter.device}: expected weights that are whole, and there")
    for name, module in model.named_modules():
        if getattr(module, "sequence", UNSHARDED) is not UNSHARDED:
            raise ValueError(f"{name or 'model'} is part of sequence parallelism: export the model of one process")


def _name(model: Model) -> str:
    """The network, and its first layers and what it mixes with, where it has a choice."""
    options = model.options or {}
    chosen = [f"{name}={options[name]!r}" for name in ("stem", "placement") if name in options]
    return f"{model.name or type(model).__name__}{' with ' if chosen else ''}{', '.join(chosen)}"


class _Whole(nn.Module):
    """Whole inputs to logits, and to what they answer."""

    def __init__(self, model: Model, answers: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.model, self.answers = model, answers

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        logits = self.model(*inputs)
        return (logits,) if self.answers is None else (logits, self.answers(logits))


def _whole(model: Model) -> tuple[nn.Module, list[str]]:
    answers = None if isinstance(model, GenerativeModel) else model.objective.answers
    return _Whole(model, answers), ["logits"] if answers is None else ["logits", "answers"]


def _of_sequences(model: Model, masked: bool) -> Call:
    stride = int(getattr(getattr(model, "stem", None), "stride", 1))
    most = getattr(model, "max_length", None)
    length = FRAMES * stride if most is None else min(FRAMES * stride, most)
    place = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    channels = int((model.options or {}).get("in_channels") or 1)
    if model.input_kind == "tokens":
        x = torch.randint(min(model.vocab_size or 2**31 - 1, 2**31 - 1), (BATCH, length), generator=generator)
    else:
        shape = (BATCH, length) if model.input_kind == "waveform" and channels == 1 else (BATCH, length, channels)
        x = torch.randn(shape, generator=generator)
    inputs = {"x": x.to(place)}
    if masked:
        inputs["mask"] = (torch.arange(length) < torch.tensor([[length], [max(1, length - 3)]])).to(place)
    module, outputs = _whole(model)
    axes = {0: "batch", 1: "length"}
    limits = {} if most is None else {"length": most}
    least = {"length": stride + 1} if stride > 1 else {}  # two frames
    name = _name(model)
    return Call(name, module, inputs, dict.fromkeys(inputs, axes), outputs, most=limits, least=least)


def _of_pictures(model: Model, masked: bool, image_size: int | Sequence[int] | None) -> Call:
    given = image_size
    if given is None:
        given = (model.preprocessing or {}).get("size") or getattr(model, "image_size", None)
    size = None if given is None else checks.per_dimension("image_size", given, 2)
    if size is not None and min(size) < 1:
        raise ValueError(f"image_size={image_size}: expected at least one pixel")
    height, width = (256, 224) if size is None else size
    channels = int((model.options or {}).get("in_channels") or 3)
    place = next(model.parameters()).device
    x = torch.randn(BATCH, channels, height, width, generator=torch.Generator().manual_seed(0))
    axes = {0: "batch"} if size is not None else {0: "batch", 2: "height", 3: "width"}
    inputs, dynamic = {"x": x.to(place)}, {"x": axes}
    if masked:
        inputs["mask"] = torch.ones(BATCH, height, width, dtype=torch.bool, device=place)
        dynamic["mask"] = {axis - (axis > 0): name for axis, name in axes.items()}
    module, outputs = _whole(model)
    stride = max(getattr(model, "strides", [32]))
    least = {name: stride + 1 for name in axes.values() if name != "batch"}  # two pixels of the last map
    return Call(_name(model), module, inputs, dynamic, outputs, least=least)


class _Step(nn.Module):
    """One token of each stream, and the tensors of its state, to logits and the tensors of the state after.

    Args:
        model: a language model.
        state: of a batch of any size, whose tensors have the sizes that they keep.
    """

    def __init__(self, model: GenerativeModel, state: LanguageModelState) -> None:
        super().__init__()
        self.model = model
        leaves, self.put_together = taken_apart(state)
        self.shapes = [(leaf.shape[1:], leaf.dtype, leaf.device) for leaf in leaves]
        self.there = [leaf.numel() > 0 for leaf in leaves]  # what is empty is no input

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tokens, *given = inputs
        rest, leaves = iter(given), []
        for there, (shape, dtype, device) in zip(self.there, self.shapes, strict=True):
            leaves.append(next(rest) if there else torch.zeros(tokens.shape[0], *shape, dtype=dtype, device=device))
        logits, after = self.model.step(tokens, self.put_together(leaves))  # type: ignore[operator]
        found, _ = taken_apart(after)
        return logits, *(leaf for leaf, there in zip(found, self.there, strict=True) if there)


def _step(model: GenerativeModel) -> Call:
    state = settled_state(model, BATCH)
    module = _Step(model, state)
    leaves, _ = taken_apart(state)
    kept = {f"state.{name}": leaf for name, leaf in zip(names_of(state), leaves, strict=True) if leaf.numel()}
    place = next(model.parameters()).device
    inputs = {"tokens": torch.full((BATCH,), model.vocab_size - 1, device=place), **kept}
    outputs = ["logits", *(name.replace("state.", "after.", 1) for name in kept)]
    initial = {name: float(leaf.flatten()[0]) for name, leaf in kept.items()}
    dynamic = {name: {0: "batch"} for name in inputs}
    return Call(f"a step of {_name(model)}", module, inputs, dynamic, outputs, initial)


def settled_state(model: GenerativeModel, batch_size: int) -> LanguageModelState:
    """The state before the first token, of the size that states have from some token on: zeros where there are none.

    A value of zero adds nothing to any position lambda, so that a step from it is one from `init_state`.

    Raises:
        TypeError: a language model of another class.
        ValueError: the state grows without end.
    """
    if not isinstance(model, LambdaLM):
        raise TypeError(f"model is {type(model).__name__}: expected a LambdaLM; use step=False")
    state = model.init_state(batch_size)
    blocks = []
    for index, (block, before) in enumerate(zip(model.blocks, state.blocks, strict=True)):
        count = keeps(block.mixing.layer.position)
        if count is None:
            kind = type(block.mixing.layer.position).__name__
            raise ValueError(
                f"blocks.{index}: the state of a {kind} keeps all values that there were, and has no size to export; "
                "give it a `reach`, or use step=False"
            )
        batch, intra, _, depth = before.values.shape
        blocks.append(replace(before, seen=count, values=before.values.new_zeros(batch, intra, count, depth)))
    return replace(state, blocks=tuple(blocks))
