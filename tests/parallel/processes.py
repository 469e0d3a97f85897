"""Processes of one thread that talk by gloo, and stay for many tests, as they take seconds to start."""

from __future__ import annotations

import functools
import multiprocessing
import os
import tempfile
import traceback
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

from lambda_seq import parallel

SECONDS = 300  # that a test may take, the start of the processes on a busy machine included


class Processes:
    """`run(function, *arguments)` calls the same on every process and returns what each has."""

    def __init__(self, ranks):
        self.ranks, self.processes = ranks, []

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()
        pipes = [context.Pipe() for _ in range(self.ranks)]
        self.pipes = [ours for ours, _ in pipes]
        for rank, (_, theirs) in enumerate(pipes):
            arguments = (rank, self.ranks, os.path.join(self.folder.name, "store"), theirs)
            self.processes.append(context.Process(target=_serve, args=arguments, daemon=True))
        for process in self.processes:
            process.start()

    def run(self, function, *arguments):
        if not self.processes:
            self.start()
        for pipe in self.pipes:
            pipe.send((function, arguments))
        answers = [_answer(pipe) for pipe in self.pipes]
        failed = [f"process {rank}: {answer}" for rank, (well, answer) in enumerate(answers) if not well]
        if failed:
            self.stop()  # the others may be waiting for the one that failed
            raise AssertionError("\n".join(failed))
        return [answer for _, answer in answers]

    def stop(self):
        for process in self.processes:
            process.kill()
            process.join()
        if self.processes:
            self.folder.cleanup()
        self.processes = []


def _answer(pipe):
    try:
        return pipe.recv() if pipe.poll(SECONDS) else (False, "no answer")
    except EOFError:
        return False, "ended"


def _serve(rank, ranks, file, pipe):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(file, ranks), rank=rank, world_size=ranks, timeout=timedelta(seconds=SECONDS)
    )
    # One mesh of a kind for all tests: each has groups of its own, with threads that never end
    parallel.make_mesh = functools.cache(parallel.make_mesh)
    while True:
        function, arguments = pipe.recv()
        torch.manual_seed(0)
        try:
            answer = (True, function(*arguments))
        except Exception:
            answer = (False, traceback.format_exc())
        pipe.send(answer)
