"""Command lines in processes of their own, as several processes and signals need them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from forked import Popen
from paths import ROOT

CLI = (sys.executable, "-m", "lambda_seq.tasks.cli")


def environment(**variables: str) -> dict[str, str]:
    """No network, a cache in the working folder, and one thread for each process."""
    alone = {"HF_DATASETS_CACHE": str(Path("cache").absolute()), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | alone | {"PYTHONPATH": str(ROOT)} | variables


def start(*words: Any, anew: bool = False, **variables: str) -> subprocess.Popen:
    """A command whose processes, and all that they start, are one group; anew: nothing has been imported for it."""
    return (subprocess.Popen if anew else Popen)(
        list(map(str, words)),
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, code: int = 0, timeout: float = 700) -> str:
    """What the command printed; raises if it ends with another status."""
    try:
        printed, _ = process.communicate(timeout=timeout)
    finally:
        end(process)
    assert process.returncode == code, f"exit status {process.returncode}, expected {code}:\n{printed}"
    return printed


def run(*words: Any, code: int = 0, anew: bool = False, **variables: str) -> str:
    """Start and finish `lambda-seq WORDS`."""
    return finish(start(*CLI, *words, anew=anew, **variables), code)


def end(process: subprocess.Popen) -> None:
    """Kill all that is left of a command."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
