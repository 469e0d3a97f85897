"""What steps free stays with the process, unless a person has chosen otherwise."""

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
from paths import ROOT
from small_data import SHORT, TINY_ENCODER
from torch import device

from lambda_seq.tasks.callbacks import kept_memory
from lambda_seq.tasks.callbacks.kept_memory import KeptMemory
from lambda_seq.tasks.memory import heap

FAULTS = """
import resource, numpy
from lambda_seq.tasks.memory.heap import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        numpy.ones(2**23)  # 64 MiB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without, kept = faults(), keep_freed()
faults()
print(without, kept, faults())
"""


def run(**variables):
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT), **variables}, capture_output=True, text=True, check=True
    )
    before, kept, after = done.stdout.split()
    return int(before), kept == "True", int(after)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_pages_are_taken_once():
    before, kept, after = run()
    assert kept
    assert before > 3 * 2**23 * 8 / 2**22  # pages, of 4 KiB or, where the system gives large ones, of 2 MiB
    assert after < before / 10


@pytest.mark.parametrize("variable", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}])
def test_who_has_chosen_is_left_alone(variable):
    assert not heap.keep_freed(variable)


@pytest.mark.parametrize("library", [SimpleNamespace(), SimpleNamespace(mallopt=None), TypeError, OSError])
def test_other_c_libraries(monkeypatch, library):
    def load(name):
        if isinstance(library, type):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert not heap.keep_freed({})


@pytest.mark.parametrize(("answers", "kept"), [([1, 1], True), ([0, 1, 1], True), ([0, 0], False), ([1, 0], False)])
def test_what_older_versions_refuse(monkeypatch, answers, kept):
    given = iter(answers)
    library = SimpleNamespace(gnu_get_libc_version=None, mallopt=lambda option, value: next(given))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert heap.keep_freed({}) is kept
    assert not list(given)


@pytest.mark.parametrize(("kind", "times"), [("cpu", 1), ("cuda", 0)])
def test_trainings_on_the_cpu_alone(monkeypatch, kind, times):
    calls = []
    monkeypatch.setattr(kept_memory, "keep_freed", lambda: calls.append(kind))
    KeptMemory().setup(SimpleNamespace(strategy=SimpleNamespace(root_device=device(kind))), None, "fit")
    assert len(calls) == times


def test_the_command_line_has_it(cli, stories, monkeypatch):
    calls = []
    monkeypatch.setattr(kept_memory, "keep_freed", lambda: calls.append("kept"))
    brief = (*SHORT, "--trainer.max_steps=1", "--test_after_fit=false", "--export=false")
    cli("fit", "--config", "text_classification", "--data.path", stories, *TINY_ENCODER, *brief)
    assert calls
