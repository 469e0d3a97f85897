"""A forked command is the command: what it finds, leaves and starts is what an interpreter of its own does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from commands import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are adopted by means of Linux")

LOOK = """
import json, os, signal, sys, tempfile
import __main__

path = [os.path.realpath(entry) if entry else entry for entry in sys.path]
path = [entry for entry in path if not entry.startswith(tempfile.gettempdir() + "/tmp")]  # of Dynamo in torch 2.8
found = {
    "argv": sys.argv,
    "path": list(dict.fromkeys(path)),
    "orig_argv": sys.orig_argv,
    "folder": os.getcwd(),
    "environment": {name: value for name, value in os.environ.items() if name != "LC_CTYPE"},
    "parent": os.getppid(),
    "leads": os.getsid(0) == os.getpid() == os.getpgid(0),
    "name": (__name__, __main__.__name__, getattr(__main__, "__file__", None), vars() is vars(__main__)),
    "module": getattr(__main__.__spec__, "name", None),
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "descriptors": [os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in range(3)],
    "given": sys.stdin.read(),
}
print(json.dumps(found))
print("said", file=sys.stderr)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("package").mkdir()
    for file in ("package/__init__.py", "package/beside.py"):
        Path(file).touch()
    for file in ("look.py", "package/look.py"):
        Path(file).write_text(LOOK)
    return tmp_path


def both(*words, given="", **options):
    """What the command of an interpreter leaves, and what its fork does."""
    command = [sys.executable, *words]
    options = {"env": environment(), "text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | options
    for kind in (subprocess.Popen, forked.Popen):
        with kind(command, stderr=subprocess.PIPE, **options) as process:
            printed, said = process.communicate(given, timeout=120)
        yield process.returncode, printed, said


@pytest.mark.parametrize(
    "words",
    [("look.py", "a", "--b=c d"), ("-m", "package.look", "a"), ("-c", LOOK, "a"), ("package/look.py",)],
    ids=["script", "module", "code", "script elsewhere"],
)
@pytest.mark.parametrize(
    "options", [{}, {"start_new_session": True, "cwd": "package"}], ids=["plain", "session and folder"]
)
def test_it_finds_what_a_command_finds(folder, words, options):
    if "cwd" in options and "look.py" in words[0]:
        words = (str(folder / words[0]), *words[1:])
    if "cwd" in options and words[0] == "-m":
        words = ("-m", "look")
    expected, found = both(*words, given="text\n", **options)
    assert expected[0] == found[0] == 0, found[2]
    assert json.loads(found[1]) == json.loads(expected[1])
    assert found[2] == expected[2] == "said\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(3)",
        "raise SystemExit('a message')",
        "raise ValueError('é')",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import atexit; atexit.register(print, 'last'); print('first')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('last'))).start()",
        "def f(): return g\ng = 1\nassert f() == 1 and __name__ == '__main__'",
        "import os; os.write(1, b'no buffer'); os._exit(7)",
        "import os; print('in a buffer'); os._exit(7)",
    ],
)
@pytest.mark.parametrize("options", [(), ("-u",)], ids=["", "unbuffered"])
def test_it_ends_as_a_command_ends(folder, options, code):
    expected, found = both(*options, "-c", code)
    assert found[:2] == expected[:2]
    assert found[2].splitlines()[-1:] == expected[2].splitlines()[-1:]


def test_signals_reach_it(folder):
    # A process that a shell began in the background ignores Ctrl-C, and so do those that it starts
    hears = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{hears}; print('ready', flush=True); time.sleep(60)"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        with forked.Popen([sys.executable, "-c", code], env=environment(), stdout=-1, stderr=-1, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            assert process.poll() is None
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        assert process.returncode == -number
        assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)


STARTS = """
import json, os, subprocess, sys
code = "import os, sys; print(os.getppid(), os.environ['LOCAL_RANK'], len(sys.modules) > 2000, os.getsid(0))"
starts = [subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"LOCAL_RANK": str(rank)}) for rank in (1, 2)]
print(os.getpid(), [start.wait() for start in starts], os.getsid(0))
"""


def test_what_it_starts_is_forked_too_and_is_its_own(folder):
    with forked.Popen([sys.executable, "-c", STARTS], env=environment(), stdout=-1, text=True) as process:
        lines = sorted(process.communicate(timeout=60)[0].splitlines())
    session = os.getsid(0)
    assert lines == sorted(
        [*(f"{process.pid} {rank} True {session}" for rank in (1, 2)), f"{process.pid} [0, 0] {session}"]
    )


def test_nothing_is_left_when_it_is_killed(folder):
    """The pipe ends when no process has it any more: not the one that was to fork what the command starts, either."""
    code = "import time; print('ready', flush=True); time.sleep(60)"
    with forked.Popen([sys.executable, "-c", code], env=environment(), stdout=-1, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        assert process.communicate(timeout=60) == ("", None)
    for _ in range(600):
        if not Path(f"/proc/{server}").exists():
            return
        signal.sigtimedwait((), 0.05)
    raise AssertionError(f"process {server} is still there")


def test_environment_that_is_read_as_modules_are_imported(folder):
    """Read again where that can be, else the command is no fork."""
    code = "import datasets.config as config, sys; print(config.HF_DATASETS_CACHE, 'matplotlib' in sys.modules)"
    for variables, is_fork in (({"HF_DATASETS_CACHE": "other"}, True), ({"HF_DATASETS_OFFLINE": "1"}, False)):
        with forked.Popen([sys.executable, "-c", code], env=environment(**variables), stdout=-1, text=True) as process:
            printed, _ = process.communicate(timeout=120)
        cache = variables.get("HF_DATASETS_CACHE", Path("cache").absolute())
        assert printed == f"{cache} {is_fork}\n"


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["-W", "error", "-c", ""], {}),
        (["-c", "print()"], {"preexec_fn": lambda: None}),
        (["-c", "print()"], {"pass_fds": (1,)}),
        (["-c", "print()"], {"executable": "/bin/true"}),
    ],
)
def test_what_is_no_fork(folder, words, options):
    process = forked.Popen([sys.executable, *words], env=environment(), stdout=subprocess.DEVNULL, **options)
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert process.wait(60) == 0
    assert b"fork_server" not in command
