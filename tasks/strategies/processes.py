"""The processes of a run that one of them has started: they end with it, and know what it has found out."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FOLLOWS = 8.0  # seconds in which an error may turn out to follow from the end of process 0, which takes its time
GRACE = 1.0  # seconds that a process has to end by itself when process 0 has ended
_FIRST = "LAMBDA_SEQ_FIRST"  # the process that starts the others, told to these
_PASSED = "LAMBDA_SEQ_PASSED"  # what it passes on to them
_started_by: int | None = None


def started_by() -> int | None:
    """The process that has started this one as another of its run; None in the first, under torchrun, on SLURM."""
    return _started_by


def pass_on(found: Any) -> None:
    """Let the processes that this one will start get what it has found, which JSON can hold, by `passed_on`."""
    os.environ[_PASSED] = json.dumps(found)


def passed_on() -> Any | None:
    """What the process that has started this one has passed on; None in the first, and if it is nothing."""
    passed = os.environ.get(_PASSED)
    return json.loads(passed) if _started_by is not None and passed else None


@contextmanager
def together() -> Iterator[None]:
    """Let processes of this run that the trainer starts end with this one, whatever ends it.

    Without it they would wait for process 0, for minutes where processes meet, and at worst for ever. What goes wrong
    in them because process 0 is gone is not reported.
    """
    global _started_by
    told, local = os.environ.get(_FIRST), os.environ.get("LOCAL_RANK", "0")
    done = threading.Event()
    if told is not None and local != "0":
        _started_by = int(told)
        threading.Thread(target=_end_with, args=(_started_by, local, done), daemon=True).start()
    os.environ[_FIRST] = str(os.getpid())
    try:
        yield
    except Exception:
        if _started_by is not None:
            time.sleep(FOLLOWS)
        raise
    finally:
        done.set()
        _started_by = None
        for name in (_FIRST, _PASSED):
            os.environ.pop(name, None)


def _end_with(first: int, local: str, done: threading.Event) -> None:
    """End this process when the first one is gone, unless it is just done itself."""
    while os.getppid() == first:
        if done.wait(0.1):
            return
    if not done.wait(GRACE):
        print(f"process {local} ends, as process 0 has", file=sys.stderr, flush=True)
        os._exit(1)
