"""What the README shows runs."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from tasks import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEVICES = (ROOT / "tasks" / "devices.md").read_text(encoding="utf-8")


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text=README):
    whole = (block.replace("\\\n", " ") for block in blocks("bash", text))
    lines = (line.split("  #")[0].strip() for block in whole for line in block.splitlines())
    return [line for line in lines if line]


def trainings():
    """Arguments of all command lines shown, whatever starts them."""
    starts = re.compile(r"^(?:srun )?lambda-seq |^torchrun .* -m tasks\.cli ")
    found = [starts.sub("", line) for line in commands() + commands(DEVICES) if starts.match(line)]
    assert sum("--ckpt_path last" in line for line in found) >= 5
    return found


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAMBDA_SEQ_CACHE", str(tmp_path))
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["y"].shape == (2, 16384, 256)
    assert "* chosen" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", trainings())
def test_training_commands_parse(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["lambda-seq", *shlex.split(command), "--print_config"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    assert "seed_everything" in printed.out


def test_scripts_exist():
    scripts = {word for line in commands() for word in shlex.split(line) if word.startswith("scripts/")}
    assert {"scripts/quickstart.py", "scripts/check.py"} <= scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_links_lead_somewhere():
    for folder, text in ((ROOT, README), (ROOT / "tasks", DEVICES)):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("https://") or (folder / target).exists(), target
