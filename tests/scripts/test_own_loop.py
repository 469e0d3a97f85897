"""The loop of one's own learns, on one process and on two."""

import sys

import pytest
from commands import finish, start
from paths import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "examples"))
import own_loop

SMALL = ["--steps", "30", "--batch_size", "4", "--length", "64", "--dim", "32", "--depth", "1", "--scope", "7"]
SMALL += ["--accelerator", "cpu", "--lr", "0.01"]


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(b"so it goes on and on, " * 400)
    return str(file)


def test_it_learns(text, capfd):
    assert own_loop.main([*SMALL, "--text", text]) < 2.0 < 5.5  # 5.5: all bytes alike
    assert "step 30: " in capfd.readouterr().out


def test_python_is_the_text_there_is():
    assert len(own_loop.library()) == 2**21


@pytest.mark.slow
def test_two_processes(text):
    command = (sys.executable, ROOT / "scripts" / "examples" / "own_loop.py", *SMALL, "--devices", "2", "--text", text)
    assert "step 30: " in finish(start(*command))
