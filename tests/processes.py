"""Processes of one thread that talk by gloo, and stay for many tests."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
import warnings
from datetime import timedelta
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
from commands import end, environment
from forked import Popen

from lambda_seq import parallel

SECONDS = 300  # that a test may take, the start of the processes on a busy machine included


class Processes:
    """`run(function, *arguments)` calls the same on every process and returns what each has."""

    def __init__(self, ranks):
        self.ranks, self.processes = ranks, []

    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        command = (sys.executable, "-m", "processes", str(self.ranks), os.path.join(self.folder.name, "store"))
        variables = environment(PYTHONPATH=os.pathsep.join(sys.path))  # of the functions they are to call
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        for rank in range(self.ranks):
            self.processes.append(Popen([*command, str(rank)], env=variables, **pipes))
        self.calls = [Connection(os.dup(one.stdin.fileno()), readable=False) for one in self.processes]
        self.answers = [Connection(os.dup(one.stdout.fileno()), writable=False) for one in self.processes]

    def run(self, function, *arguments):
        if not self.processes:
            self.start()
        for pipe in self.calls:
            pipe.send_bytes(pickle.dumps((function, arguments)))
        answers = [_answer(pipe) for pipe in self.answers]
        failed = [f"process {rank}: {answer}" for rank, (well, answer) in enumerate(answers) if not well]
        if failed:
            self.stop()  # the others may be waiting for the one that failed
            raise AssertionError("\n".join(failed))
        return [answer for _, answer in answers]

    def stop(self):
        for process in self.processes:
            end(process)
            process.communicate()
        if self.processes:
            for pipe in (*self.calls, *self.answers):
                pipe.close()
            self.folder.cleanup()
        self.processes = []


def run_together(ranks, function, *arguments):
    """What each of so many processes has from the function; they end with it."""
    processes = Processes(ranks)
    try:
        return processes.run(function, *arguments)
    finally:
        processes.stop()


def _answer(pipe):
    try:
        return pickle.loads(pipe.recv_bytes()) if pipe.poll(SECONDS) else (False, "no answer")
    except EOFError:
        return False, "ended"


def _serve(ranks, file, rank):
    calls, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what is printed is no answer
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(file, ranks), rank=rank, world_size=ranks, timeout=timedelta(seconds=SECONDS)
    )
    # One mesh of a kind for all tests: each has groups of its own, with threads that never end
    parallel.make_mesh = functools.cache(parallel.make_mesh)
    while True:
        function, arguments = pickle.loads(calls.recv_bytes())
        torch.manual_seed(0)
        try:
            answer = (True, function(*arguments))
        except Exception:
            answer = (False, traceback.format_exc())
        answers.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
