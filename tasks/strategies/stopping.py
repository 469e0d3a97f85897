"""A request to stop, as preemption makes it: heard at once, and followed by all processes after the same step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lambda_seq.tasks.strategies.processes import started_by

STOPPED = 128 + signal.SIGTERM  # exit status of a run that was asked to stop, so that no one takes it for finished


class StopRequest:
    """Hears SIGTERM, the first Ctrl-C, and on SLURM the signal before the end of a job's time, while a trainer trains.

    In place of Lightning's handlers, which talk to the other processes, or save, at the very moment a signal comes: in
    the middle of a step, where the others may be in another one. Here a signal is only noted; `heard` asks all
    processes when they have finished a step, or a batch of a validation.
    """

    def __init__(self) -> None:
        self._signals: set[int] = set()

    def listen(self, trainer: Trainer) -> None:
        """Note signals from now on; the trainer puts former handlers back in place when it ends."""
        self._signals.clear()
        _handle(trainer, self._note)
        self._hear_interrupts()

    def heard(self, trainer: Trainer) -> bool:
        """Whether any process was asked to stop; all of them have to ask."""
        return trainer.strategy.reduce_boolean_decision(bool(self._signals), all=False)

    def stop(self, trainer: Trainer, kept: str) -> None:
        """End the training, whose state is saved at `kept`, and put the job in SLURM's queue again if it is one.

        Raises:
            KeyboardInterrupt: after Ctrl-C, of which Lightning makes status 1.
            SIGTERMException: else, which ends the process with status 143; 0 in processes that another has started.
        """
        if trainer.is_global_zero and self._signals == {signal.SIGINT}:
            raise KeyboardInterrupt
        if trainer.is_global_zero:
            print(
                f"stopped as asked to, after step {trainer.global_step}; saved in {kept}; go on with --ckpt_path last",
                file=sys.stderr,
            )
            if _requeue_signal(trainer) in self._signals and (job := _slurm_job()):
                _requeue(job)
        raise SIGTERMException(STOPPED if trainer.is_global_zero else 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.add(number)

    def _hear_interrupts(self) -> None:
        """Note the first Ctrl-C, where it would end the program; with the second it does.

        Processes that load data let it pass: the step that is finished may need what they load.
        """
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        own = os.getpid()

        def handle(number: int, frame: FrameType | None) -> None:
            if os.getpid() != own:
                return
            if number in self._signals:
                signal.default_int_handler(number, frame)
            self._note(number, frame)
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                print("interrupted: this step is finished and saved; Ctrl-C again ends it at once", file=sys.stderr)

        signal.signal(signal.SIGINT, handle)


def end_when_asked(trainer: Trainer | None = None) -> None:
    """End the process as soon as it is asked to stop, where there is nothing to save: before training and after it.

    In a process that process 0 has started, it is that one which ends, and all others with it.
    """
    _handle(trainer, _end)


@contextmanager
def ending_when_asked() -> Iterator[None]:
    """`end_when_asked` for all that a command does, unless the program around it hears requests itself."""
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        end_when_asked()
    try:
        yield
    finally:
        if before is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    if (first := started_by()) is not None:
        os.kill(first, signal.SIGTERM)
        return
    print("stopped as asked to; what is missing of a fit follows with --ckpt_path last", file=sys.stderr)
    first_of_all = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if number != signal.SIGTERM and first_of_all and (job := _slurm_job()):
        _requeue(job)
    raise SIGTERMException(STOPPED)


def _handle(trainer: Trainer | None, handler: Callable[[int, FrameType | None], None]) -> None:
    """Let requests to stop this process come to a handler; those to processes that it forks end these."""
    if threading.current_thread() is not threading.main_thread():  # others hear no signals
        return
    own = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, _requeue_signal(trainer)):
        if number is not None:
            signal.signal(number, handle)


def _requeue_signal(trainer: Trainer | None) -> int | None:
    """The signal that comes before the end of a job's time; without a trainer the usual one."""
    if trainer is None:
        return SLURMEnvironment().requeue_signal if SLURMEnvironment.detect() else None
    # Private to Lightning: on a single device no strategy has the environment, with the signal that it was given
    environment = trainer._accelerator_connector.cluster_environment
    return environment.requeue_signal if isinstance(environment, SLURMEnvironment) else None


def _requeue(job: str) -> None:
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: job {job} could not be queued again, {error}; submit it once more", file=sys.stderr)


def _slurm_job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
