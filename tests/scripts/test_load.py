"""What other programs do while something is measured."""

import os
import time

import pytest
from benchmarks import machine
from benchmarks.machine import Others, disturbs, load


def test_the_share_of_others_leaves_out_our_own(monkeypatch):
    clock = {"busy": 10.0, "now": 0.0, "own": 1.0}
    monkeypatch.setattr(machine, "busy_seconds", lambda: clock["busy"])
    monkeypatch.setattr(time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(time, "process_time", lambda: clock["own"])
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    others = Others()
    clock |= {"busy": 10.0 + 6, "now": 2.0, "own": 1.0 + 4}  # of 8 seconds of cores 6, of which 4 are ours
    assert others.share() == pytest.approx(0.25)
    clock["own"] = 9.0  # counted in coarser steps
    assert others.share() == 0
    clock["busy"] = None
    assert others.share() is None


@pytest.mark.parametrize(
    ("share", "threads", "disturbed"),
    [
        (None, 2, False),
        (0.0, 4, False),
        (0.19, 4, False),
        (0.21, 4, True),
        (0.5, 2, False),
        (0.7, 2, True),
        (0.9, 9, True),
    ],
)
def test_others_disturb_where_cores_are_shared(monkeypatch, share, threads, disturbed):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert disturbs(share, threads) is disturbed


def test_a_busy_machine_is_said(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.3, 0, 0))
    assert load() == ""
    monkeypatch.setattr(os, "getloadavg", lambda: (6.25, 0, 0))
    assert load() == "the machine is busy: its load is 6.2, of 4 cores"
    monkeypatch.delattr(os, "getloadavg")
    assert load() == ""
