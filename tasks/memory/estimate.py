"""What a training step will take, before it is made.

The step is made of tensors that have a size, a device and a type, but no memory (torch's FakeTensorMode): forward and
backward of the whole batch, of which the tensors that are alive are summed up. It takes about a second, whatever the
batch, and knows nothing of what libraries take for themselves.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Both are documented, but in modules that are private to torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lambda_seq.tasks.facts import Facts


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step.

    Attributes:
        fixed: whatever the batch: gradients, and what the optimizer keeps.
        activations: at its peak, for the batch; about so much for each row.
        rows: of the batch.
        what: the batch in words.
    """

    fixed: int
    activations: int
    rows: int
    what: str

    @property
    def total(self) -> int:
        """All that it takes beside the weights."""
        return self.fixed + self.activations

    def fitting(self, room: int) -> int | None:
        """Most rows, a power of two below the batch's, that fit; None if not even one does."""
        rows = 1
        if self.fixed + self.activations / self.rows > room:
            return None
        while 2 * rows < self.rows and self.fixed + self.activations * 2 * rows / self.rows <= room:
            rows *= 2
        return rows


class Alive(TorchDispatchMode):
    """Sums up the bytes of tensors that operations have made and that are alive.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return made

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()  # a storage has one Python object while it lives
        if key in self._known:
            return
        self.now += size
        self.peak = max(self.peak, self.now)
        self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))

    def _gone(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.now -= size


class Step(nn.Module):
    """A task's forward pass and a loss that takes what cross-entropy does, without its figures."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """A number for a batch."""
        x, mask = self.task.inputs(batch)
        network = self.task.network.forward  # not as compiled
        output = network(x) if mask is None else network(x, mask)
        return output.float().log_softmax(-1).mean()


def batch_like(
    facts: Facts, rows: int, longest: int | None, device: torch.device
) -> tuple[dict[str, Tensor], str] | None:
    """An empty batch of the data as they are at most, and what it is in words; None where their size is not known.

    Args:
        facts: what the data are.
        rows: of the batch.
        longest: positions of the longest row, where that is known.
        device: of the training.
    """
    options = facts.options
    channels, most = options.get("in_channels", 1), longest or options.get("max_length")
    if facts.kind == "image":
        if "image_size" not in options:
            return None
        height, width = options["image_size"]
        x = torch.empty(rows, channels, height, width, dtype=torch.uint8, device=device)
        return {"x": x}, f"{rows:,} pictures of {height} × {width}"
    if facts.audio is not None:
        most = longest or facts.audio.max_length
    if facts.series is not None:
        channels = len(facts.series.channels)  # without indicators, which the front end makes
    if most is None:
        return None
    if facts.audio is not None:
        x, unit = torch.empty(rows, most, device=device), "samples"
    elif facts.kind == "tokens":
        x, unit = torch.zeros(rows, most, dtype=torch.int64, device=device), "tokens"
    else:
        dtype = torch.float32 if facts.pixels is None else torch.uint8
        x, unit = torch.empty(rows, most, channels, dtype=dtype, device=device), "positions"
    batch = {"x": x}
    if facts.labels is not None and facts.pixels is None:
        batch["mask"] = torch.ones(rows, most, dtype=torch.bool, device=device)
    return batch, f"{rows:,} rows of {most:,} {unit}"


def estimate(
    task: Any,
    rows: int,
    *,
    longest: int | None = None,
    kept: int = 2,
    context: AbstractContextManager | None = None,
) -> StepMemory | None:
    """What a training step of a task takes; None if its data do not say how large a batch is.

    Args:
        task: a `Training` whose network is made.
        rows: of a batch.
        longest: positions of the longest row.
        kept: numbers that the optimizer keeps of each weight.
        context: of the forward pass, such as autocast.

    Raises:
        Exception: whatever a network raises that looks at numbers which are not there.
    """
    weights = [p for p in task.network.parameters() if p.requires_grad]
    device = weights[0].device if weights else torch.device("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        made = batch_like(task.facts, rows, longest, device)
        if made is None:
            return None
        batch, what = made
        step = Step(task)
        tensors = {**dict(step.named_parameters()), **dict(step.named_buffers())}
        unreal: dict[str, Tensor] = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
        with Alive() as alive, context or nullcontext():
            loss = torch.func.functional_call(step, unreal, (batch,))
            loss.backward()
    size = sum(weight.nbytes for weight in weights)
    return StepMemory((1 + kept) * size, max(alive.peak - size, 0), rows, what)


def kept_by(optimizer: torch.optim.Optimizer) -> int:
    """Numbers that an optimizer keeps of each weight: two of Adam and its kin, one with momentum, none of plain SGD."""
    defaults = optimizer.defaults
    if "betas" in defaults:
        return 3 if defaults.get("amsgrad") else 2
    return int(bool(defaults.get("momentum", 1)))
