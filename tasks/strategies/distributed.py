"""Several devices by configuration alone: batch norms that agree, and weights that are spread over all processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from lambda_seq.layers import separate, synchronise
from lambda_seq.models.sequence.blocks import Block, Blocks
from lambda_seq.models.vision.bottleneck import Bottleneck
from lambda_seq.tasks.checkpointing.storage import AtomicCheckpoints

UNITS = (Block, Bottleneck)  # residual blocks, whose weights are gathered together
STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class SyncedNorms(TorchSyncBatchNorm):
    """What --trainer.sync_batchnorm true does here: masked batch norms too, and on CPUs too."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Let batch norms count the positions of all processes."""
        return synchronise(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo `apply`."""
        return separate(model)


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 as --trainer.strategy fsdp2: each process keeps its part of weights, gradients and optimizer states.

    It is Lightning's `ModelParallelStrategy` with all processes in the dimension "data_parallel", unless
    `tensor_parallel_size` takes some of them, and with checkpoints in one file, which is written atomically and read
    by any other strategy on any number of devices. Batch norms are always synchronised, as FSDP2, other than DDP,
    leaves running statistics as each process has them.

    Args:
        tensor_parallel_size: processes that share one part of the batch.
        options: of `ModelParallelStrategy`.
    """

    def __init__(self, tensor_parallel_size: int = 1, **options: Any) -> None:
        self.shared = tensor_parallel_size
        super().__init__(tensor_parallel_size=tensor_parallel_size, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        """Build the mesh of all processes, whose number is not known before."""
        processes = self.num_nodes * self.num_processes
        if processes % self.shared:
            raise ValueError(f"tensor_parallel_size={self.shared}: does not divide the {processes} processes")
        # Private to Lightning, whose constructor takes it before the number of processes is known
        self._data_parallel_size = processes // self.shared
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load as usual, which passes the plugin for checkpoints by, but check the file and read no code.

        Raises:
            ValueError: it is damaged.
        """
        if isinstance(self.checkpoint_io, AtomicCheckpoints):
            self.checkpoint_io.go_on_from(Path(checkpoint_path))
        return super().load_checkpoint(checkpoint_path, weights_only=True)

    def setup(self, trainer: Trainer) -> None:
        """Synchronise batch norms, then as usual."""
        if trainer.state.fn == TrainerFn.FITTING and self.model is not None:
            synchronise(self.model)
        super().setup(trainer)


StrategyRegistry.register("fsdp2", ShardedStrategy, description=(ShardedStrategy.__doc__ or "").partition("\n")[0])


def shard(module: LightningModule, mesh: DeviceMesh) -> None:
    """Spread a module's parameters over the processes of a mesh, by `fully_shard`; each step then gathers them again.

    The residual blocks of a network are gathered one at a time, so that never more than one and what is outside of
    blocks is whole; what blocks share is gathered by itself, for each of them. Done once; a module that is spread
    already stays as it is.

    Args:
        module: whose steps are called; its parameters become DTensors.
        mesh: of one dimension; on CPUs with gloo, on GPUs with nccl.
    """
    if isinstance(module, FSDPModule):
        return
    shared = [found.shared for found in module.modules() if isinstance(found, Blocks) and found.shared is not None]
    for unit in [*shared, *(found for found in module.modules() if isinstance(found, UNITS))]:
        fully_shard(unit, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for step in STEPS:  # Lightning calls these, not `forward`
        register_fsdp_forward_method(module, step)
