"""Where the processes of a run meet."""

from __future__ import annotations

import errno
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch.distributed import DistStoreError, TCPStore, is_torchelastic_launched

PATIENCE = timedelta(minutes=10)  # between the first and the last process of a start
_SHARED, _PORT = "TORCHELASTIC_USE_AGENT_STORE", "MASTER_PORT"


def check_port(trainer: Trainer) -> None:
    """That the port is free at which process 0 is going to wait for the others, before they are started.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(trainer.strategy, ParallelStrategy) or trainer.global_rank or is_torchelastic_launched():
        return
    environment = trainer.strategy.cluster_environment
    if environment is None:
        return
    port = environment.main_port
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ValueError(
                    f"{_PORT}={port}: another program uses this port, at which the processes of the run would meet; "
                    "give one that is free, or leave the variable out"
                ) from error


@contextmanager
def own_store() -> Iterator[None]:
    """Let `init_process_group` use a new store, hosted by the first process; nothing changes without torchrun.

    torchrun starts workers again with the store of the workers before, in which the addresses of these still stand
    (PyTorch 2.13, whose agent keeps one store; see https://github.com/pytorch/pytorch/issues/135712). A worker that
    reads one of them waits for a process that is gone, until the process group's time is over. The first process
    therefore opens a store of its own and tells the others its port, through the shared store but safe from what others
    wrote there: each asks with a word that it has just drawn, and reads only the answer to that word.

    Raises:
        TimeoutError: a process has not come within `PATIENCE`.
    """
    if os.environ.get(_SHARED) != str(True):
        yield
        return
    host, port, rank, count = (os.environ[name] for name in ("MASTER_ADDR", _PORT, "RANK", "WORLD_SIZE"))
    shared = TCPStore(host, int(port), is_master=False)
    if rank == "0":  # `init_process_group` finds this server in its own process, as both are multi-tenant
        server = TCPStore(host, 0, is_master=True, wait_for_workers=False, multi_tenant=True)
        own_port = server.port
        answer(shared, int(count), own_port)
    else:
        own_port = ask(shared, int(rank))
    os.environ.update({_SHARED: str(False), _PORT: str(own_port)})
    try:
        yield
    finally:
        os.environ.update({_SHARED: str(True), _PORT: port})


def ask(shared: TCPStore, rank: int, patience: timedelta = PATIENCE) -> int:
    """The port that the first process of this start tells process `rank`.

    Raises:
        TimeoutError: it has not within `patience`.
    """
    word = uuid.uuid4().hex
    shared.set(f"lambda_seq/question/{rank}", word)
    try:
        shared.wait([f"lambda_seq/answer/{word}"], patience)
    except DistStoreError as error:
        raise TimeoutError(f"process 0 has not told process {rank} its port within {patience}") from error
    port, start = shared.get(f"lambda_seq/answer/{word}").decode().split()
    shared.set(f"lambda_seq/{start}/{rank}", "told")
    return int(port)


def answer(shared: TCPStore, count: int, port: int, patience: timedelta = PATIENCE) -> None:
    """Tell all others of `count` processes the port, until each has said that it knows.

    A question may be one of a process that has ended; the process that has taken its rank asks anew.

    Raises:
        TimeoutError: one has not within `patience`.
    """
    start, deadline = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    missing = set(range(1, count))
    while missing:
        for rank in missing:
            if shared.check([f"lambda_seq/question/{rank}"]):
                word = shared.get(f"lambda_seq/question/{rank}").decode()
                shared.set(f"lambda_seq/answer/{word}", f"{port} {start}")
        time.sleep(0.05)
        missing = {rank for rank in missing if not shared.check([f"lambda_seq/{start}/{rank}"])}
        if missing and time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(missing)} of {count} have not come within {patience}")
