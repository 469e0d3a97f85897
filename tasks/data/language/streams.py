"""Rows for language models from documents that are read as they come, and that no disk has to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

import datasets
import numpy as np
from datasets.distributed import split_dataset_by_node
from jaxtyping import Int
from torch import distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lambda_seq.tasks.data.language.packs import Documents, EvaluationRows, TrainingRows, no_row
from lambda_seq.tasks.data.reading.tokens import Tokens

START: dict[str, Any] = {"epoch": 0, "block": 0, "stream": None, "row": 0}  # where reading begins


class Block:
    """Documents in memory, as ids: `tasks.data.language.packs.Readable`.

    Args:
        texts: strings or bytes.
        tokens: what turns them into ids.
    """

    def __init__(self, texts: list[bytes | str], tokens: Tokens) -> None:
        self.sizes = np.array([len(text.encode(errors="replace") if isinstance(text, str) else text) for text in texts])
        kind = np.uint16 if tokens.vocab_size <= 2**16 else np.uint32
        self.ids = [ids.astype(kind) for ids in tokens.encode_all(texts)]

    @property
    def lengths(self) -> Int[np.ndarray, " documents"]:
        """Tokens of each document."""
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)

    def read(self, index: int, begin: int = 0, end: int | None = None) -> Int[np.ndarray, " N"]:
        """Ids of a document from token `begin` to before `end`."""
        return self.ids[index][begin:end].astype(np.int64)

    def documents(self, mark: int, first: int = 0) -> Documents:
        """Those that have a token, with marks; they are numbered from `first`."""
        return Documents.of(self, self.sizes, mark=mark, names=[str(first + number) for number in range(len(self.ids))])


class StreamedRows(IterableDataset):
    """Rows for training, without an end: when all documents were read, they are read again.

    Documents are read in blocks, and the rows of a block come in random order, as `TrainingRows` cuts them: what is
    left, less than a row, is lost. Where the rows came from goes with each as "state", from which reading goes on
    exactly, as the beginning of a block and the number of the row in it say all.

    Each process and each worker reads its own share of the documents; see `datasets.distributed`.

    Args:
        source: the documents.
        column: of their texts.
        tokens: what turns them into ids.
        length: predictions per row.
        block: documents that are read together.
        seed: of the order.
        replicas: number of processes that share the documents.
        rank: of this process.
    """

    def __init__(
        self,
        source: datasets.IterableDataset,
        column: str,
        tokens: Tokens,
        *,
        length: int,
        block: int,
        seed: int,
        replicas: int = 1,
        rank: int = 0,
    ) -> None:
        self.shards = source.num_shards // replicas if source.num_shards % replicas == 0 else source.num_shards
        self.source = split_dataset_by_node(source, rank, replicas) if replicas > 1 else source
        self.column, self.tokens, self.length, self.block = column, tokens, length, block
        self.seed, self.rank = seed, rank
        self.states: dict[int, dict[str, Any]] = {}  # where each worker begins

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows with "state", what to give as the worker's state to go on behind them."""
        worker = get_worker_info()
        number = worker.id if worker else 0
        state = self.states.get(number, START)
        while True:
            found = False
            for block, stream, texts in self._blocks(state):
                epoch, done = state["epoch"], state["row"] if block == state["block"] else 0
                documents = Block(texts, self.tokens).documents(self.tokens.pad)
                if not len(documents):
                    continue
                found = True
                seed = [self.seed, self.rank, number, block]
                rows = TrainingRows(documents, self.length, seed)
                order = np.random.default_rng([*seed, epoch, 1]).permutation(len(rows)).tolist()
                for place, row in enumerate(order[done:], done + 1):
                    yield rows[epoch, row] | {"state": {"epoch": epoch, "block": block, "stream": stream, "row": place}}
            if not found and state["block"] == 0:
                raise ValueError(f"column {self.column!r}: there is no text in all the documents of this process")
            state = START | {"epoch": state["epoch"] + 1}

    def _blocks(self, state: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any] | None, list[bytes | str]]]:
        """Number, state of the source before it and texts of each block, to the end of the documents."""
        source = deepcopy(self.source)  # what is loaded is for this time only, but `copy` shares it
        if state["stream"] is not None:
            source.load_state_dict(state["stream"])
        block, stream, rows = state["block"], state["stream"], iter(source)
        while texts := [row[self.column] or b"" for row in islice(rows, self.block)]:
            yield block, stream, texts
            block, stream = block + 1, source.state_dict()


class StreamedWindows(IterableDataset):
    """Rows that predict each token of all documents exactly once, as `EvaluationRows`, from a stream.

    Processes and workers take turns, each reading all documents, and get the same number of rows.

    Args:
        source, column, tokens: as for `StreamedRows`.
        length: predictions per row.
        stride: new predictions per window.
        block: documents that are read together.
        replicas: number of processes that share the rows.
        rank: of this process.
    """

    def __init__(
        self,
        source: datasets.IterableDataset,
        column: str,
        tokens: Tokens,
        *,
        length: int,
        stride: int,
        block: int,
        replicas: int = 1,
        rank: int = 0,
    ) -> None:
        self.source, self.column, self.tokens, self.block = source, column, tokens, block
        self.length, self.stride, self.replicas, self.rank = length, stride, replicas, rank

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows of this process and worker."""
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        readers, reader = self.replicas * workers, self.rank * workers + number
        seen = first = 0
        # Read by `iter` a source is not divided among workers.
        for batch in self.source.iter(self.block):
            texts = [text or b"" for text in batch[self.column]]
            documents = Block(texts, self.tokens).documents(self.tokens.pad, first)
            first += len(texts)
            if not len(documents):
                continue
            rows = EvaluationRows(documents, self.length, self.stride)
            for row in range((reader - seen) % readers, len(rows), readers):
                yield rows[row]
            seen += len(rows)
        if not seen:
            raise ValueError(f"column {self.column!r}: there is no text in all the documents of a split")
        if seen % readers and reader >= seen % readers:
            yield no_row(self.tokens.pad)


class StreamLoader(DataLoader):
    """Batches of `StreamedRows`, which go on where they stopped: in the next epoch, and when training is resumed.

    Args:
        rows: what is loaded.
        trained: number of batches that were trained in all epochs, asked when one begins and when it is saved.
        options: of `torch.utils.data.DataLoader`.

    Raises:
        ValueError: more workers than parts into which the source can be divided.
    """

    def __init__(self, rows: StreamedRows, *, trained: Callable[[], int], **options: Any) -> None:
        workers = options.get("num_workers", 0)
        if workers > rows.shards:
            raise ValueError(
                f"num_workers={workers}: the training data come in {rows.shards} parts (files) for each process, of "
                f"which each worker needs one of its own; give --data.num_workers {rows.shards} or less"
            )
        collate = options.pop("collate_fn")
        super().__init__(rows, collate_fn=_WithState(collate), **options)
        self.rows, self.trained = rows, trained
        self.workers = max(workers, 1)
        # By batches that were trained since the first was asked for: the workers' states when all had taken their turn
        # last, and how many batches were taken since. Batches may be asked for ahead of those that are trained.
        self._places: dict[int, tuple[dict[int, dict[str, Any]], int]] = {0: ({}, 0)}
        self._offset: int | None = None  # batches that were trained before the first was asked for

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches, without an end; a generator, so that `trained` is asked at the first `next`."""
        states, skip = self._places[self._done()]
        self._offset, self._places = self.trained(), {0: (states, skip)}
        self.rows.states = states
        latest = dict(states)
        for number, batch in enumerate(super().__iter__(), 1):
            latest[(number - 1) % self.workers] = batch.pop("state")
            if number % self.workers == 0:
                states = dict(latest)
            if number > skip:  # others were trained before
                self._places[number - skip] = states, number % self.workers
                done = self._done()
                self._places = {place: found for place, found in self._places.items() if place >= done}
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module keeps `reached`. Lightning takes a loader that has this as resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: Lightning would forget it where the steps of a training are counted first."""

    def reached(self) -> dict[str, Any]:
        """Where training has come to, on all processes; all of them have to ask."""
        states, skip = self._places[self._done()]
        own = {"states": {str(worker): state for worker, state in states.items()}, "skip": skip}
        every = [own]
        if distributed.is_available() and distributed.is_initialized():
            every = [own] * distributed.get_world_size()
            distributed.all_gather_object(every, own)
        return {"workers": self.workers, "processes": every, "blocks": self._blocks}

    @property
    def _blocks(self) -> dict[str, int]:
        """What a place in the stream is counted in."""
        return {"shuffle_buffer": self.rows.block, "length": self.rows.length, "batch_size": int(self.batch_size or 1)}

    def go_on(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: the numbers of workers or processes, or the sizes of rows and blocks, are not those of the run
                that is resumed.
        """
        connected = distributed.is_available() and distributed.is_initialized()
        processes, rank = (distributed.get_world_size(), distributed.get_rank()) if connected else (1, 0)
        if (state["workers"], len(state["processes"])) != (self.workers, processes):
            raise ValueError(
                f"ckpt_path: a stream goes on with the workers that read it, {state['workers']} in each of "
                f"{len(state['processes'])} processes, not {self.workers} in each of {processes}; give "
                f"--data.num_workers {state['workers']} and as many devices"
            )
        was = state.get("blocks", self._blocks)
        turns = any(process["skip"] for process in state["processes"])  # batches since the workers' states were kept
        differing = [name for name in was if was[name] != self._blocks[name] and (name != "batch_size" or turns)]
        if differing:
            raise ValueError(
                f"ckpt_path: a stream goes on with the {' and '.join(differing)} by which it was read, or rows would "
                f"be trained twice or never; give {' '.join(f'--data.{name} {was[name]}' for name in differing)}"
            )
        own = state["processes"][rank]
        self._places = {0: ({int(worker): found for worker, found in own["states"].items()}, own["skip"])}
        self._offset = None

    def _done(self) -> int:
        """Batches that were trained since the first was asked for."""
        return 0 if self._offset is None else self.trained() - self._offset


class _WithState:
    """A batch, with the state after its last row."""

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return self.collate(rows) | {"state": rows[-1]["state"]}


def stream_features(source: datasets.IterableDataset) -> datasets.IterableDataset:
    """The same source, with known columns: of some files they are known only when one row was read."""
    if source.features is not None:
        return source
    first = next(iter(source.iter(1)), None)
    features = datasets.Features() if first is None else datasets.Dataset.from_dict(first).features
    return source.cast(features)
