"""Commands of Python that import nothing: a server has imported what they need, and each is a fork of it.

To import what a training needs takes six seconds of a core; to train a small network takes two; a training of four
processes imports four times. `Popen` is `subprocess.Popen` without the imports. What it starts is a child of this
process, with the pipes, signals, folder, environment, arguments and session it would have, and ends with the same
status. What that starts in turn is forked, too: the processes of Lightning, of torchrun, of a script. Whatever a fork
cannot stand in for (another program, options of the interpreter, variables that are read as modules are imported) is
started as ever, and so is everything where there is no Linux.

What a fork cannot show, and a test of the real command must: what is printed, or fails, as the interpreter starts and
imports; a module that is used but not imported, as the server may have imported it; how long a start takes, and how
much memory; figures, which have no pixels. Forks hash strings alike, where each interpreter has a seed of its own.
Modules are not taken down at the end. A fork has one child from the start, which forks what the command starts; and
/proc shows the server's arguments and environment.
"""

from __future__ import annotations

import atexit
import ctypes
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from paths import ROOT

SERVER = Path(__file__).with_name("fork_server.py")
# Variables that are read as the interpreter starts and modules are imported, but for those that a fork reads again
EARLY = ("PYTHON", "LD_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH_", "CUDA_", "MPL", "HF_")
READ_AGAIN = ("PYTHONPATH", "HF_DATASETS_CACHE", "TORCH_NCCL_ASYNC_ERROR_HANDLING")  # the last one late
ADOPT = 36  # PR_SET_CHILD_SUBREAPER of Linux


class Server:
    """One that has imported what commands need. There is one for all tests, and one for each command it has forked."""

    def __init__(self, end: socket.socket, early: dict[str, str]):
        self.end, self.early, self.alone = end, early, threading.Lock()

    @classmethod
    def start(cls, environment: dict[str, str]) -> Server:
        """A process that imports what commands need, and ends with this one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = [sys.executable, str(SERVER), str(theirs.fileno())]
            variables = environment | {"PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(words, pass_fds=[theirs.fileno()], env=variables, stdin=subprocess.DEVNULL)
        atexit.register(lambda: (ours.close(), process.wait()))
        return cls(ours, read_early(environment))

    def fork(self, command: dict, streams: list[int]) -> int:
        """The process of a command: a child of this one, which adopts it when the process between them ends."""
        with self.alone:
            adopt_orphans(True)
            try:
                socket.send_fds(self.end, [json.dumps(command).encode()], streams)
                answer = self.end.recv(32)
            finally:
                adopt_orphans(False)
        if not answer:
            raise ChildProcessError("the server that forks commands has ended")
        return int(answer)


def adopt_orphans(whether: bool) -> None:
    """Make this process the parent of those below it whose own parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(ADOPT, int(whether), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def read_early(environment: dict[str, str]) -> dict[str, str]:
    """The variables that a fork has no other values of than its server."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(EARLY) and name not in READ_AGAIN and value
    }


_server: Server | None = None


def use(end: socket.socket) -> None:
    """Have commands of this process forked by the server at the other end."""
    global _server
    _server = Server(end, read_early(dict(os.environ)))
    subprocess.Popen = Popen  # type: ignore[misc]


_PARAMETERS = inspect.signature(subprocess.Popen._execute_child)


class Popen(subprocess.Popen):
    """`subprocess.Popen` of a fork wherever one can be the command."""

    def _execute_child(self, *given) -> None:
        global _server
        options = _PARAMETERS.bind(self, *given).arguments
        words, environment = can_be_forked(options), dict(os.environ if options["env"] is None else options["env"])
        if words and _server is None:
            _server = Server.start(environment)
        if not words or read_early(environment) != _server.early:
            super()._execute_child(*given)
            return
        command = {
            "words": words,
            "environment": environment,
            "folder": os.path.abspath(options["cwd"] or os.curdir),
            "session": options["start_new_session"],
        }
        ours = [options[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self.pid = _server.fork(command, [default if end == -1 else end for default, end in enumerate(ours)])
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(options[name] for name in pipes))


def can_be_forked(options: dict) -> list[str] | None:
    """The words of a command of this Python: `-u` or not; `-m MODULE`, `-c CODE` or a script; its arguments."""
    words = options["args"]
    if sys.platform != "linux" or options["shell"] or isinstance(words, str | bytes | os.PathLike):
        return None
    words = [os.fsdecode(word) for word in words]
    mode = next(iter(words[2 if words[1:2] == ["-u"] else 1 :]), "-")
    special = (options["executable"] not in (None, words[0]), options["preexec_fn"], tuple(options["pass_fds"]))
    special += (*(options[name] is not None for name in ("gid", "gids", "uid")), options["umask"] >= 0)
    special += (options["process_group"] != -1, not options["close_fds"], not options["restore_signals"])
    if words[0] != sys.executable or any(special) or (mode.startswith("-") and mode not in ("-m", "-c")):
        return None
    return words[1:]
