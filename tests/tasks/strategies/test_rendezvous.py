"""Processes that torchrun starts again meet each other, and none that has ended."""

import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import CLI, end, finish, run, start
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from small_data import QUIET, TINY_RESNET, image_folder
from torch.distributed import TCPStore

from lambda_seq.tasks.strategies.rendezvous import PATIENCE, answer, ask, check_port, own_store

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
# The first process is late, such that the second would find its predecessor's address in torchrun's store
WORKER = """
import os, signal, sys, time
from datetime import timedelta
import torch
import torch.distributed as distributed
from lambda_seq.tasks.strategies.rendezvous import own_store

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


TWO = (
    *("fit", "--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.path=pictures"),
    *("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--output_dir=run"),
)


@pytest.fixture
def taken():
    """A port at which another program listens, and never answers."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def of_strategy(kind, port, rank=0):
    strategy = kind.__new__(kind)
    strategy.cluster_environment = SimpleNamespace(main_port=port)
    return SimpleNamespace(strategy=strategy, global_rank=rank)


def test_a_port_that_another_program_uses_is_named(taken):
    with pytest.raises(ValueError, match=f"MASTER_PORT={taken}: another program uses this port"):
        check_port(of_strategy(DDPStrategy, taken))
    check_port(of_strategy(DDPStrategy, taken, rank=1))  # where process 0 waits by now
    check_port(of_strategy(SingleDeviceStrategy, taken))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check_port(of_strategy(DDPStrategy, port))


@pytest.mark.slow
def test_two_processes_end_with_one_message_if_their_port_is_taken(taken):
    image_folder(Path("pictures"), {"train": 4, "validation": 2, "test": 2})
    printed = run(*TWO, code=1, MASTER_PORT=str(taken), MASTER_ADDR="127.0.0.1")
    assert printed.count("error:") == 1
    assert "another program uses this port" in printed


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before they meet", "in training"])
def test_no_process_stays_when_the_first_is_killed(moment):
    image_folder(Path("pictures"), {"train": 40, "validation": 2, "test": 2})
    training = (*CLI, *TWO, "--trainer.max_epochs=1000", "--last.every_n_train_steps=1")
    process = start(*training, anew=moment == "before they meet")  # a fork has a child from the start
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            if moment == "in training" and Path("run/checkpoints/last.ckpt").exists():
                break
            if moment == "before they meet" and children(process.pid):
                break
            time.sleep(0.02)
        others = children(process.pid)
        assert others
        process.send_signal(signal.SIGKILL)
        printed, _ = process.communicate(timeout=60)  # which comes to its end when no process has the pipe any more
        assert "Traceback" not in printed
        deadline = time.monotonic() + 20
        while any(map(is_running, others)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        end(process)


def is_running(process: int) -> bool:
    """Whether there is such a process, and not only what is left of it (Linux)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def children(parent: int) -> list[int]:
    """The processes that a process has started (Linux)."""
    return [
        int(pid) for task in Path(f"/proc/{parent}/task").glob("*") for pid in (task / "children").read_text().split()
    ]


@pytest.mark.slow
def test_all_end_with_one_message_when_each_finds_the_same_fault():
    image_folder(Path("pictures"), {"train": 4, "validation": 2, "test": 2})
    (Path("pictures") / "train" / "up" / "00.png").write_text("no picture")
    printed = run(*TWO, code=1)
    assert printed.count("error:") == 1
    assert "00.png" in printed
    assert "Traceback" not in printed
