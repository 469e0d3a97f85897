"""Processes that torchrun starts again meet each other, and none that has ended."""

import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from commands import end, finish, start
from torch.distributed import TCPStore

from tasks.rendezvous import PATIENCE, answer, ask, own_store

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
# The first process is late, such that the second would find its predecessor's address in torchrun's store
WORKER = """
import os, signal, sys, time
from datetime import timedelta
import torch
import torch.distributed as distributed
from tasks.rendezvous import own_store

rank, again = int(os.environ["RANK"]), os.path.exists(sys.argv[1])
if rank == 0:
    time.sleep(1)
with own_store():
    distributed.init_process_group("gloo", timeout=timedelta(seconds=20))
    with open(f"ports{rank}", "a") as ports:
        print(os.environ["MASTER_PORT"], file=ports)
ranks = torch.full((1,), rank + 1)
distributed.all_reduce(ranks)
if not again:
    if rank == 1:
        open(sys.argv[1], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
open(f"rank{rank}", "w").write(str(ranks.item()))
distributed.destroy_process_group()
"""


@pytest.fixture
def store():
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)


def test_questions_of_processes_that_have_ended_do_not_matter(store):
    store.set("lambda_seq/question/1", "of the start before")
    store.set("lambda_seq/answer/of the start before", "1 earlier")
    clients = [TCPStore("127.0.0.1", store.port, is_master=False, timeout=PATIENCE) for _ in range(2)]
    with ThreadPoolExecutor(3) as pool:
        server = pool.submit(answer, store, 3, 4711)
        found = [pool.submit(ask, client, rank) for rank, client in enumerate(clients, start=1)]
        assert [port.result() for port in found] == [4711, 4711]
        server.result()


def test_a_process_that_does_not_come_is_named(store):
    short = timedelta(seconds=0.5)
    with pytest.raises(TimeoutError, match=r"processes \[1, 2\] of 3 have not come within 0:00:00.5"):
        answer(store, 3, 4711, short)
    with pytest.raises(TimeoutError, match=r"process 0 has not told process 2 its port within 0:00:00.5"):
        ask(store, 2, short)


def test_nothing_changes_without_torchrun(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    before = dict(os.environ)
    with own_store():
        assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_workers_started_again_meet_each_other(machines):
    """In a new store each time: in torchrun's the second process may find the first one's predecessor."""
    Path("worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", "--local-addr=127.0.0.1")
    size = (f"--nnodes={machines}", f"--nproc-per-node={2 // machines}", "--max-restarts=1")
    agents = [start(*TORCHRUN, *where, *size, "worker.py", "killed") for _ in range(machines)]
    try:
        for agent in agents:
            finish(agent, timeout=100)
    finally:
        for agent in agents:
            end(agent)
    ports = [Path(f"ports{rank}").read_text().split() for rank in range(2)]
    assert ports[0] == ports[1]
    assert len(set(ports[0])) == 2  # one for each start
    assert [Path(f"rank{rank}").read_text() for rank in range(2)] == ["3", "3"]
