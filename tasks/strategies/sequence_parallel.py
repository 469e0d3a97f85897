"""Training on sequences that several processes share: `--sequence_parallel 4`, a strategy for Lightning's trainer."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from lambda_seq import parallel
from lambda_seq.functional import Packing
from lambda_seq.models import LambdaEncoder, LambdaLM
from lambda_seq.tasks.metrics import count_in

FILL = {"documents": -1}  # behind sequences that are too short for all processes
START = {"auto": "popen", "ddp": "popen", "ddp_fork": "fork", "ddp_spawn": "spawn"}  # strategies it stands in for


class SequenceParallel(DDPStrategy):
    """DistributedDataParallel in which neighbouring processes share the sequences of their batches.

    The devices are data-parallel × sequence-parallel. All processes of a sequence load the same rows, and the network
    of each gets its chunk of them. Losses are those of whole rows on every process, so that the mean of all gradients,
    which DistributedDataParallel takes, is that of the data-parallel processes alone: see `lambda_seq.parallel`. Tasks
    say by `shares_sequences` that they are made for it.

    Args:
        sequence_parallel: number of processes that share a sequence; divides the number of devices.
        options: of DDPStrategy.
    """

    def __init__(self, sequence_parallel: int, **options: Any) -> None:
        super().__init__(**options)
        self.sequence_parallel = sequence_parallel
        self._cutting: Any = None

    def setup_environment(self) -> None:
        """Connect the processes, and arrange them.

        Raises:
            ValueError: the number of devices is no multiple of `sequence_parallel`.
        """
        super().setup_environment()
        self.mesh = parallel.make_mesh(self.sequence_parallel, self.root_device.type)
        self.data_group = self.mesh.get_group(parallel.DATA)  # processes over which metrics add up

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """The data-parallel processes: who shares a sequence has the same rows."""
        every = super().distributed_sampler_kwargs
        return {name: number // self.sequence_parallel for name, number in every.items()}

    @property
    def leads(self) -> bool:
        """Whether this process speaks for those with which it shares its sequences."""
        return bool(self.mesh.get_local_rank(parallel.SEQUENCE) == 0)

    def setup(self, trainer: Trainer) -> None:
        """Let the network work on chunks, and metrics count each row once.

        Raises:
            ValueError: a task or a network that cannot be split.
        """
        task: Any = self.lightning_module
        network = getattr(task, "network", None)
        shares = getattr(task, "shares_sequences", False)
        shares = shares and getattr(
            getattr(task, "answers", None), "shares_sequences", True
        )  # as labels of words do not
        if not shares or not isinstance(network, (LambdaEncoder, LambdaLM)):
            raise ValueError(
                f"sequence_parallel={self.sequence_parallel}: {type(task).__name__} trains a {type(network).__name__}, "
                "which cannot be split here; use Classification with lambda_encoder, LanguageModelling with lambda_lm"
            )
        parallel.parallelize(network, self.mesh)
        if self._cutting is None:
            self._cutting = network.register_forward_pre_hook(self._cut, with_kwargs=True)
        count_in(task, self.data_group)
        super().setup(trainer)

    def teardown(self) -> None:
        """Leave a network of whole sequences."""
        task: Any = self.lightning_module
        if self._cutting is not None and task is not None:
            self._cutting.remove()
            self._cutting = None
            parallel.parallelize(task.network, None)
            count_in(task, None)
        super().teardown()

    def _cut(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """What a network is called with, of this process's positions."""
        given = dict(inspect.signature(network.forward).bind(*args, **kwargs).arguments)
        whole: Any = given[next(iter(given))]  # (B, N, …)
        stride: Any = network.stem.stride
        if given.get("mask") is None and -(-whole.shape[1] // stride) < self.sequence_parallel:
            given["mask"] = torch.ones(whole.shape[:2], dtype=torch.bool, device=whole.device)  # it is lengthened
        if isinstance(packing := given.get("documents"), Packing):  # each process makes that of its own chunk
            given["documents"] = packing.number
        return (), {
            name: None if part is None else parallel.chunk_for(network, part, fill=FILL.get(name, 0), multiple=stride)
            for name, part in given.items()
        }


def make_strategy(sequence_parallel: int, strategy: Any) -> SequenceParallel:
    """What stands in for the configured strategy.

    Raises:
        ValueError: it is none that this can stand in for.
    """
    if not isinstance(strategy, str) or strategy not in START:
        raise ValueError(
            f"trainer.strategy={strategy!r} with sequence_parallel={sequence_parallel}: expected one of "
            f"{', '.join(map(repr, START))}"
        )
    return SequenceParallel(sequence_parallel, start_method=START[strategy])
