"""From a saved model's folder to answers: a model with all that its training did to inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lambda_seq.inference.answers import Embedded, Generation, Prediction, prediction, tagged
from lambda_seq.inference.batches import mean_by_document
from lambda_seq.inference.loading import reader_of
from lambda_seq.inference.readers import TextReader, text_of
from lambda_seq.inference.series import is_numbers
from lambda_seq.inference.tagging import Given, TagReader
from lambda_seq.inference.tokens import as_text
from lambda_seq.models.model import Model, from_pretrained
from lambda_seq.models.sequence.generation import GenerativeModel

Read = tuple[Tensor, list[int | None]]  # of some windows, and how many positions of each are real, None for all
ONE = (str, bytes, Path, Mapping)  # inputs, and no collections of them


class Predictor:
    """Answers to raw inputs: texts, pictures, clips, series, or prompts of a language model.

    Inputs are read as the evaluation of the training read its rows, by the record that a run saves with its model:
    sampling rate, size, standardisation, tokens, which part or windows. What a model takes, `predictor.kind` says:

    - "text": str, bytes, or `pathlib.Path` for the text of a file;
    - "picture": paths, bytes of files, pictures of PIL, arrays (H, W[, C]) and tensors (C, H, W) of bytes;
    - "clip": paths, bytes of files, and samples with their rate, (samples, rate) or {"array", "sampling_rate"};
    - "series": arrays (channels, N), or (N,) of one channel, numbers by the names of channels, and paths of files that
      hold one series;
    - "tagged text", of networks that answer for each word: as "text", or lists of words, one as {"tokens": […]};
    - "prompt", of language models: as "text".

        predictor = lambda_seq.load_predictor("outputs/NAME/model")
        predictor(["a text", "another"])[0].label
        predictor("a text").probabilities
        predictor.embed(["a text", "another"])  # (2, channels), of what is alike near one another

    Args:
        model: with the record as `preprocessing`, as `from_pretrained` gives it.
        batch_size: windows that the network takes at once.
        name: of the model, for messages.

    Attributes:
        model: in evaluation mode.
        labels: names of the classes, or their numbers where the model does not know any.

    Raises:
        ValueError: the model does not say how inputs are read, or a batch size below 1.
        ModuleNotFoundError: a package is missing that reads such inputs.
    """

    def __init__(self, model: Model, *, batch_size: int = 32, name: str = "the model") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.model, self.batch_size = model.eval(), batch_size
        self.reader = reader_of(model, name)
        self.kind = "prompt" if isinstance(model, GenerativeModel) else self.reader.kind
        self.labels = model.labels or [str(index) for index in range(model.num_classes)]
        if self.reader.frontend is not None:
            self.reader.frontend.to(self._weight.device)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The answer to one input, or a list of the answers to a list, or any other collection, of inputs.

        Args:
            inputs: of the model's kind.
            options: of a language model, those of `generate`.

        Returns:
            A `Prediction`, or a list of them; of a language model `Generation`.

        Raises:
            ValueError, TypeError: an input that cannot be read; names it, by its number among `inputs` and its path.
        """
        single = self._is_one(inputs)
        if self.kind == "prompt":
            found: list[Any] = self.generate([inputs] if single else inputs, **options)
        elif options:
            raise TypeError(f"{next(iter(options))}: the model is no language model, whose options of `generate` it is")
        else:
            found = list(self.stream([inputs] if single else inputs))
        return found[0] if single else found

    def stream(self, inputs: Iterable[Any]) -> Iterator[Prediction]:
        """Answers one by one, in order, while inputs are read a batch at a time: of more than fit into memory.

        Raises:
            ValueError, TypeError: as the call.
        """
        if self.kind == "prompt":
            raise TypeError("the model is a language model: call the predictor, or its `generate`")
        if isinstance(self.reader, TagReader):
            yield from self._tagged(inputs, self.reader)
            return
        for name, row in self._rows(inputs, self._forward, self.model.objective.pooled):
            yield prediction(name, row.numpy(), self.model.objective, self.labels)

    def embed(self, inputs: Any) -> np.ndarray:
        """The vector (channels,) of one input, or vectors (n, channels) of several: what the head would answer from.

        Inputs that are alike have vectors that are near one another. Of networks that answer for each position they are
        means over these, and of inputs that are read in windows means over these.

        Args:
            inputs: of the model's kind.

        Raises:
            ValueError, TypeError: as the call, or the network has no head that reads one vector for an input.
        """
        single = self._is_one(inputs)
        found = [one.vector for one in self.embeddings([inputs] if single else inputs)]
        if single:
            return found[0]
        return np.stack(found) if found else np.zeros((0, 0), np.float32)

    def embeddings(self, inputs: Iterable[Any]) -> Iterator[Embedded]:
        """Vectors one by one, in order, while inputs are read a batch at a time; see `embed`.

        Raises:
            ValueError, TypeError: as `embed`.
        """
        if self.kind == "prompt":
            raise TypeError("the model is a language model, which has no vector of a whole text: take an encoder")
        if not isinstance(getattr(self.model, "head", None), nn.Module):
            raise ValueError(f"a {type(self.model).__name__} has no module `head`, in front of which its vectors are")
        for name, row in self._rows(inputs, self._vectors, pooled=True):
            yield Embedded(name, row.float().numpy())

    def _rows(
        self, inputs: Iterable[Any], forward: Callable[[list[Tensor]], Read], pooled: bool
    ) -> Iterator[tuple[str, Tensor]]:
        """What a function makes of the windows of each input, and the input's name."""
        names: list[str] = []
        windows: list[Tensor] = []
        document: list[int] = []  # the place in `names` that each window belongs to
        for index, given in enumerate(inputs):
            read = self._read(index, given, pooled)
            if windows and len(windows) + len(read) > self.batch_size:
                yield from self._answers(names, windows, document, forward, pooled)
                names, windows, document = [], [], []
            document += [len(names)] * len(read)
            windows += read
            names.append(self._path(given) or str(index))
        if windows:
            yield from self._answers(names, windows, document, forward, pooled)

    def _tagged(self, inputs: Iterable[Any], reader: TagReader) -> Iterator[Prediction]:
        """Answers to the words of texts, some windows at a time."""
        waiting: list[tuple[str, Given]] = []
        for index, given in enumerate(inputs):
            with _naming(index, self._path(given)):
                read = reader.given(given)
            if waiting and sum(len(other.windows) for _, other in waiting) + len(read.windows) > self.batch_size:
                yield from self._words(waiting, reader)
                waiting = []
            waiting.append((self._path(given) or str(index), read))
        if waiting:
            yield from self._words(waiting, reader)

    def _words(self, waiting: Sequence[tuple[str, Given]], reader: TagReader) -> Iterator[Prediction]:
        windows, rows = [window for _, given in waiting for window in given.windows], []
        with torch.inference_mode():
            for begin in range(0, len(windows), self.batch_size):
                rows += list(self._forward(windows[begin : begin + self.batch_size])[0])
        for name, given in waiting:
            own, rows = rows[: len(given.windows)], rows[len(given.windows) :]
            each = list(reader.answered(given, own))
            answer = torch.stack(each).numpy() if each else np.zeros((0, len(self.labels)), np.float32)
            yield tagged(name, given.marked, answer, self.labels)

    def generate(self, prompts: Iterable[Any], max_new_tokens: int = 100, **options: Any) -> list[Generation]:
        """What a language model writes after each prompt, until a document ends.

        Args:
            prompts: texts, or paths of files with texts; "" for a document from its beginning.
            max_new_tokens: at most so many.
            options: temperature, top_k, top_p, seed: see `GenerativeModel.generate`.

        Raises:
            TypeError: the model is no language model, or a prompt is no text.
            ValueError: an option out of range, or a prompt that leaves no room.
        """
        model, reader = self.model, self.reader
        if not isinstance(model, GenerativeModel) or not isinstance(reader, TextReader):
            raise TypeError(f"a {type(model).__name__} writes no text: call the predictor with inputs to answer")
        if self._is_one(prompts):
            raise TypeError("prompts: expected a list of them; call the predictor for a single one")
        tokens, found = reader.tokens, []
        for index, given in enumerate(prompts):
            with _naming(index, self._path(given)):
                text = text_of(given)
                begin = torch.tensor([[tokens.pad, *tokens.encode(text).tolist()]])  # a document's mark goes first
                ids = model.generate(begin, max_new_tokens, stop=tokens.pad, pad_id=tokens.pad, **options)
            found.append(Generation(self._path(given) or str(index), as_text(text), tokens.decode(ids[0].tolist())))
        return found

    @property
    def _weight(self) -> Tensor:
        """One that says where the network is, and of which type."""
        return next(one for one in self.model.parameters() if one.is_floating_point())

    def _is_one(self, given: Any) -> bool:
        """Whether it is an input, and no collection of such, as arrays of several pictures, or of texts, are."""
        if self.kind == "series" and isinstance(given, np.ndarray | Tensor | list):
            return is_numbers(given) if isinstance(given, list) else given.ndim < 3
        if isinstance(given, np.ndarray | Tensor):
            return given.ndim < 4 and not (isinstance(given, np.ndarray) and given.dtype.kind in "OSU")
        if isinstance(given, tuple):
            return self.kind == "clip" and len(given) == 2 and isinstance(given[1], int | np.integer)
        return isinstance(given, ONE) or not isinstance(given, Iterable)

    def _path(self, given: Any) -> str | None:
        """The path of an input that is one; a str is one to models that read no texts."""
        return (
            str(given)
            if isinstance(given, Path if isinstance(self.reader, TextReader | TagReader) else str | Path)
            else None
        )

    def _read(self, index: int, given: Any, pooled: bool) -> list[Tensor]:
        with _naming(index, self._path(given)):
            windows = self.reader.windows(given)
            if len(windows) > 1 and not pooled:
                raise ValueError(
                    f"it is longer than the {len(windows[0]):,} positions that are read at once, and the model answers "
                    "for each position: cut it into parts"
                )
        return windows

    def _answers(
        self,
        names: list[str],
        windows: list[Tensor],
        document: list[int],
        forward: Callable[[list[Tensor]], Read],
        pooled: bool,
    ) -> Iterator[tuple[str, Tensor]]:
        """Of one batch, or of several where an input has more windows than that."""
        parts, reals = [], []
        with torch.inference_mode():
            for begin in range(0, len(windows), self.batch_size):
                answers, real = forward(windows[begin : begin + self.batch_size])
                parts.append(answers)
                reals += real
            if pooled:
                means = mean_by_document(torch.cat(parts), torch.tensor(document))
                rows: Sequence[Tensor] = list(means)
            else:
                each = (answers for part in parts for answers in part)
                rows = [row if count is None else row[:count] for row, count in zip(each, reals, strict=True)]
        yield from zip(names, rows, strict=True)

    def _forward(self, windows: list[Tensor]) -> Read:
        """Answers to windows, on the CPU, and how many positions of each are real, None for all."""
        logits, mask = self._logits(windows)
        real: list[int | None] = [None] * len(windows) if mask is None else mask.sum(1).tolist()
        return self.model.objective.answers(logits).cpu(), real

    def _vectors(self, windows: list[Tensor]) -> Read:
        """What the head is given of each window, on the CPU, as a mean over real positions where it is for each."""
        given: list[Tensor] = []
        head: Any = self.model.head
        hook = head.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
        try:
            _, mask = self._logits(windows)
        finally:
            hook.remove()
        vectors = given[0].float()  # (B, dim) or (B, M, dim)
        if vectors.ndim == 3:
            real = vectors.new_ones(vectors.shape[:2]) if mask is None else mask.to(vectors.dtype)  # (B, M)
            vectors = (vectors * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp_min(1)
        return vectors.cpu(), [None] * len(windows)

    def _logits(self, windows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Logits of windows, and the mask (B, M) of positions, or frames, that are real; None for all."""
        x, mask = self.reader.batch(windows)
        weight = self._weight
        x, mask = x.to(weight.device), None if mask is None else mask.to(weight.device)
        if self.reader.frontend is not None:
            x, mask = self.reader.frontend(x, mask)
            x = x.to(weight.dtype)
        logits = self.model(x) if mask is None else self.model(x, mask)
        stride: Any = getattr(getattr(self.model, "stem", None), "stride", 1)
        return logits, None if mask is None else mask[:, ::stride]


def load_predictor(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    batch_size: int = 32,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
) -> Predictor:
    """What answers raw inputs by the model of a folder, such as `outputs/NAME/model` of a run, by name, or of the hub.

    Args:
        name_or_path: a folder; else one of `list_pretrained()`; else "owner/name" of the hub.
        device: where the model shall be; None for the CPU.
        batch_size: windows that the network takes at once.
        revision, cache_dir, token: as for `from_pretrained`.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `from_pretrained`, or the model does not say how inputs are
            read.
        ModuleNotFoundError: a package is missing that reads such inputs.
    """
    model = from_pretrained(name_or_path, revision=revision, device=device, cache_dir=cache_dir, token=token)
    return Predictor(model, batch_size=batch_size, name=str(name_or_path))


@contextmanager
def _naming(index: int, path: str | None) -> Iterator[None]:
    """Errors of an input say which it is."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"inputs[{index}]{f', {path}' if path else ''}: {error}") from error
