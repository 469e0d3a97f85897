"""A training of one or more processes that is asked to stop, or killed, goes on where it was."""

import os
import re
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import CLI, end, finish, run, start
from lightning.pytorch.utilities.exceptions import SIGTERMException
from small_data import QUIET, TINY_RESNET, image_folder

from lambda_seq.tasks.strategies.stopping import ending_when_asked

IMAGES = (
    *("fit", "--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET, "--data.batch_size=4"),
    *("--trainer.max_epochs=12", "--test_after_fit=false", "--data.path=pictures", "--trainer.accelerator=cpu"),
    *("--trainer.accumulate_grad_batches=2", "--model.options.dropout=0.3", "--export=false"),
)
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2", "--trainer.sync_batchnorm=true")
LAST = Path("run/checkpoints/last.ckpt")
STEPS = 36


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    return image_folder(Path("pictures"), {"train": 12, "validation": 4, "test": 4})


def wait_for(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    assert condition()


def last() -> dict:
    return torch.load(LAST, weights_only=True)


def assert_as_whole() -> None:
    expected, found = torch.load("whole/checkpoints/last.ckpt", weights_only=True), last()
    assert found["global_step"] == expected["global_step"] == STEPS
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor), name


@pytest.mark.slow(seconds=20)
@pytest.mark.parametrize("options", [(), TWO], ids=["one", "two"])
def test_sigterm_saves_and_ends(options):
    run(*IMAGES, *options, "--output_dir=whole")
    process = start(*CLI, *IMAGES, *options, "--output_dir=run", anew=options == TWO)
    wait_for(LAST.is_file, process)
    os.kill(process.pid, signal.SIGTERM)  # the first process alone; it is for it to tell the other
    printed = finish(process, 143)
    told = re.search(r"stopped as asked to, after step (\d+); saved in run/checkpoints/last.ckpt", printed)
    assert told
    assert "Traceback" not in printed
    assert 0 < last()["global_step"] == int(told[1]) < STEPS
    run(*IMAGES, *options, "--output_dir=run", "--ckpt_path=last")
    assert_as_whole()


FOREGROUND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


@pytest.mark.slow
def test_ctrl_c_of_a_terminal():
    """All processes of the command hear it; one that loads data goes on, for the batches that a step still needs."""
    loading = (*IMAGES, "--data.num_workers=1")
    run(*loading, "--output_dir=whole")
    code = FOREGROUND + "from lambda_seq.tasks.cli import main; main()"
    process = start(sys.executable, "-c", code, *loading, "--output_dir=run")
    wait_for(LAST.is_file, process)
    os.killpg(process.pid, signal.SIGINT)
    printed = finish(process, 1)
    step = last()["global_step"]
    assert 0 < step < STEPS
    assert f"interrupted after step {step}; run/checkpoints/last.ckpt holds all until step {step}" in printed
    assert "Traceback" not in printed
    run(*loading, "--output_dir=run", "--ckpt_path=last")
    assert_as_whole()


@pytest.mark.slow
def test_sigterm_in_a_validation_of_two_processes():
    """They stop in it, with batches of another number each, and make it again."""
    (Path("pictures") / "validation" / "up" / "03.png").unlink()
    options = (
        *TWO,
        "--trainer.max_epochs=2",
        "--trainer.val_check_interval=2",
        "--data.batch_size=1",
    )
    options = (*options, "--last.every_n_train_steps=0")
    run(*IMAGES, *options, "--output_dir=whole")
    slow = "import time, lambda_seq.tasks.classification as task; step = task.Classification.validation_step\n"
    slow += "def late(*given):\n    open('validating', 'w').close(); time.sleep(1); return step(*given)\n"
    slow += "task.Classification.validation_step = late\nfrom lambda_seq.tasks.cli import main; main()"
    Path("slow.py").write_text(slow)
    process = start(CLI[0], "slow.py", *IMAGES, *options, "--output_dir=run", "--trainer.num_sanity_val_steps=0")
    wait_for(Path("validating").is_file, process)
    os.kill(process.pid, signal.SIGTERM)
    printed = finish(process, 143)
    assert "stopped as asked to, after step 1;" in printed
    assert "Traceback" not in printed
    run(*IMAGES, *options, "--output_dir=run", "--ckpt_path=last")
    found, expected = (torch.load(f"{run}/checkpoints/best.ckpt", weights_only=True) for run in ("run", "whole"))
    assert found["global_step"] == expected["global_step"]
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor), name


@pytest.mark.slow
def test_sigterm_in_the_test_of_two_processes():
    options = (*TWO, "--trainer.max_epochs=1", "--test_after_fit=true", "--export=true")
    slow = "import time, lambda_seq.tasks.classification as task; step = task.Classification.test_step\n"
    slow += "def late(*given):\n    open('testing', 'w').close(); time.sleep(1); return step(*given)\n"
    slow += "task.Classification.test_step = late\nfrom lambda_seq.tasks.cli import main; main()"
    Path("slow.py").write_text(slow)
    process = start(CLI[0], "slow.py", *IMAGES, *options, "--output_dir=run")
    wait_for(Path("testing").is_file, process)
    os.kill(process.pid, signal.SIGTERM)
    printed = finish(process, 143, timeout=120)
    assert printed.count("stopped as asked to") == 1
    assert "Traceback" not in printed
    assert not Path("run/summary.json").exists()
    run(*IMAGES, *options, "--output_dir=run", "--ckpt_path=last")
    assert Path("run/summary.json").is_file()
    assert Path("run/model/model.safetensors").is_file()


def test_processes_that_are_forked_end_when_asked_to():
    """As the workers of pools are: they are not the run, and must not stop it."""
    with ending_when_asked():
        ready, up = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(up, b".")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)  # Python forgets signals that reach a child before it is set up
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_a_request_ends_what_has_nothing_to_save(capsys):
    with pytest.raises(SIGTERMException) as stop, ending_when_asked():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.code == 143
    assert "stopped as asked to" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow(seconds=40)
def test_torchrun_starts_again_when_a_worker_dies():
    """The second of two workers is killed; the agent starts both again, and they go on from the last checkpoint."""
    run(*IMAGES, *TWO, "--output_dir=whole")
    agent = (CLI[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2")
    training = (*IMAGES, *TWO, "--output_dir=run", "--ckpt_path=last", "--last.every_n_train_steps=1")
    process = start(*agent, "-m", "lambda_seq", *training, anew=True)  # /proc says which worker is which
    try:
        wait_for(LAST.is_file, process)
        os.kill(worker(process.pid, rank=1), signal.SIGKILL)
        printed = finish(process)
    finally:
        end(process)
    assert "Restoring states from the checkpoint path at run/checkpoints/last.ckpt" in printed
    assert_as_whole()


def worker(agent: int, rank: int) -> int:
    """The process of this rank that an agent has started (Linux)."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        if parent == agent and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    raise AssertionError(f"no worker of rank {rank} below {agent}")


@pytest.mark.slow
def test_slurm_preempts_and_requeues():
    """What a job of SLURM sees: its variables, SIGUSR1 before the end of its time, and a command to queue it again."""
    Path("bin").mkdir()
    command = Path("bin/scontrol")
    command.write_text('#!/bin/sh\necho "$@" > requeued\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NAME": "train",
        "PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}",
    }
    one = ("--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=ddp")
    run(*IMAGES, "--output_dir=whole")
    process = start(*CLI, *IMAGES, *one, "--output_dir=run", "--ckpt_path=last", **job)
    wait_for(LAST.is_file, process)
    process.send_signal(signal.SIGUSR1)
    assert "stopped as asked to" in finish(process, 143)
    assert Path("requeued").read_text() == "requeue 4711\n"
    run(*IMAGES, *one, "--output_dir=run", "--ckpt_path=last", **job)
    assert_as_whole()
