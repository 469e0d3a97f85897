"""Imports what commands of the tests need, and forks one for each request: see forked.py, which sends them."""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import multiprocessing.process
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import forked

# What trainings import, some of it only as they begin; not what they do, as a server must have no threads
MODULES = (
    *("lambda_seq.tasks.cli", "torch.utils.tensorboard", "sklearn.datasets"),
    *("matplotlib.backends.backend_agg", "torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp"),
    *("torch.distributed.tensor.parallel", "torch._dynamo", "tensorboard.plugins.hparams.plugin_data_pb2"),
    *("safetensors.torch", "einops.layers.torch", "attrs", "torch.distributed.algorithms.ddp_comm_hooks"),
)
FORK_SAFE = {"jemalloc_bg_thd"}  # pyarrow's allocator takes its locks before a fork


def main(end: socket.socket) -> None:
    """Import, serve, and in each fork be what was asked for."""
    subprocess.Popen = forked.Popen  # type: ignore[misc]  # for those that import it by name
    for name in MODULES:
        importlib.import_module(name)
    from PIL import Image
    from unrendered import DRAWING, Unrendered

    Image.init()
    for module in DRAWING:
        module.Figure = Unrendered
    sys.path[:] = [entry for entry in sys.path[1:] if entry != os.environ["PYTHONPATH"]]
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    names = {(task / "comm").read_text().strip() for task in tasks}
    if names - FORK_SAFE:
        raise RuntimeError(f"threads {names - FORK_SAFE} after imports: a fork has their locks, and not the threads")
    gc.collect()
    gc.freeze()  # so that forks write less into what they share
    be(*serve(end))


def serve(end: socket.socket) -> tuple[dict, list[int]]:
    """Fork for each request; returns in the forks alone, with a command and its standard streams."""
    while True:
        request, streams, _, _ = socket.recv_fds(end, 1 << 20, 3)
        if not request:
            os._exit(0)  # who asked has ended
        answer, told = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            if os.fork():
                os._exit(0)
            os.write(told, str(os.getpid()).encode())  # not before now, as Python forgets signals that come earlier
            for descriptor in (end.detach(), answer, told):
                os.close(descriptor)
            while os.getppid() == between:  # until who asked has adopted this process
                time.sleep(0.001)
            return json.loads(request), streams
        for descriptor in (told, *streams):
            os.close(descriptor)
        os.waitpid(between, 0)
        command = os.read(answer, 32)
        os.close(answer)
        end.send(command)


def be(command: dict, streams: list[int]) -> None:
    """Become the command: what the interpreter would have set, a server for what it starts, and then its code."""
    if command["session"]:
        os.setsid()
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    os.closerange(3, max(streams) + 1)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    if not have_server():
        return  # what it has forked has been what it had to
    read_again()
    end(status_of(command["words"]))


def have_server() -> bool:
    """A child that forks what the command starts, from a state before anything that the command does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if os.fork():
        theirs.close()
        forked.use(ours)
        return True
    ours.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # pipes of the command end with it
        os.dup2(nothing, standard)
    os.close(nothing)
    if heard[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    given = serve(theirs)
    for number, handler in heard.items():
        signal.signal(number, handler)
    be(*given)
    return False


def read_again() -> None:
    """What modules have found as they were imported: variables, the folder, chance."""
    import datasets.config
    import numpy as np
    from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only

    importlib.reload(datasets.config)
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()
    rank_zero_only.rank = _get_rank() or 0
    random.seed()
    np.random.seed()


def execute(words: list[str]) -> None:
    """As `python WORDS`: argv, the path that modules are found on, and a `__main__` of its own."""
    sys.orig_argv[:] = [sys.executable, *words]
    if words[0] == "-u":
        words = words[1:]
        for name in ("stdout", "stderr"):
            file = open(getattr(sys, name).fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
            setattr(sys, name, io.TextIOWrapper(file, write_through=True))
    mode, name = (words[0], words[1]) if words[0] in ("-m", "-c") else ("", words[0])
    sys.argv[:] = ["-c" if mode == "-c" else name, *words[2 if mode else 1 :]]
    found = os.environ.get("PYTHONPATH")
    first = {"-m": os.getcwd(), "-c": ""}.get(mode) or str(Path(name).resolve().parent)
    sys.path[:0] = ["" if mode == "-c" else first, *(found.split(os.pathsep) if found else ())]
    script = sys.modules["__main__"] = types.ModuleType("__main__")
    if mode == "-m":
        forget(name)
        runpy._run_module_as_main(name)
        return
    if mode == "-c":
        code, file = name, "<string>"
    else:
        code, file = Path(name).read_bytes(), os.path.abspath(name)
        script.__file__ = file
    exec(compile(code, file, "exec"), script.__dict__)


def status_of(words: list[str]) -> int:
    """Execute and return the exit status; what is raised is printed as the interpreter prints it."""
    try:
        execute(words)
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return ending.code or 0
        print(ending.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        sys.excepthook(type(interrupt), interrupt, interrupt.__traceback__)
        return -signal.SIGINT
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def end(status: int) -> None:
    """As the interpreter: wait for threads, call what was to be called, flush; but take no modules down.

    To do so takes as long as a fifth of a small training, as memory that is shared is copied to be given back.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def forget(name: str) -> None:
    """The server has imported it; as `__main__` it runs anew, and by its own name it has not been imported."""
    package, _, module = name.rpartition(".")
    if sys.modules.pop(name, None) and package in sys.modules:
        delattr(sys.modules[package], module)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
