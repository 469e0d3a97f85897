"""What the README shows runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    lines = (line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines())
    return [line for line in lines if line]


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAMBDA_SEQ_CACHE", str(tmp_path))
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["y"].shape == (2, 16384, 256)
    assert "* chosen" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("lambda-seq")])
def test_training_commands_parse(command):
    words = [sys.executable, "-m", "tasks.cli", *shlex.split(command)[1:], "--print_config"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "seed_everything" in result.stdout


def test_scripts_exist():
    scripts = {word for line in commands() for word in shlex.split(line) if word.startswith("scripts/")}
    assert {"scripts/quickstart.py", "scripts/check.py"} <= scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
