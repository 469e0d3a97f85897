"""README and documentation: their code runs, their commands parse, their links lead somewhere, and the site builds."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from commands import finish, start
from paths import ROOT

from lambda_seq import functional as LF
from lambda_seq.interop import onnx_command
from lambda_seq.models import list_heads
from lambda_seq.tasks import cli, predicting

PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
NEEDS = {"export.md": ("onnx", "onnxscript", "onnxruntime")}  # packages of extras that pages are about
STARTS = re.compile(r"^(?:srun )?lambda-seq |^torchrun .* -m lambda_seq\.tasks\.cli ")


def blocks(language, text):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text):
    whole = (block.replace("\\\n", " ") for block in blocks("bash", text))
    lines = (line.split("  #")[0].strip() for block in whole for line in block.splitlines())
    return [line for line in lines if line]


def trainings():
    """Arguments of all command lines shown, whatever starts them."""
    lines = (line for text in PAGES.values() for line in commands(text))
    return sorted({STARTS.sub("", line) for line in lines if STARTS.match(line)} - {*predictions(), *exports()})


def predictions():
    """Arguments of the command lines that answer with a saved model."""
    lines = (STARTS.sub("", line) for text in PAGES.values() for line in commands(text) if STARTS.match(line))
    return sorted({line for line in lines if predicting.asks(shlex.split(line))})


def exports():
    """Arguments of the command lines that write a saved model for other programs."""
    lines = (STARTS.sub("", line) for text in PAGES.values() for line in commands(text) if STARTS.match(line))
    return sorted({line for line in lines if line.startswith("export ")})


def code():
    long = {"export.md": pytest.mark.slow(seconds=20)}
    return [pytest.param(name, marks=long.get(name, ())) for name, text in PAGES.items() if blocks("python", text)]


@pytest.mark.parametrize("page", code())
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """Those of a page, one after another, in a process of their own, which ends with the classes that they register.

    Blocks marked `py` need data, weights or processes.
    """
    for name in NEEDS.get(page, ()):
        pytest.importorskip(name, reason=f"{name} is not installed, which the page is about")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / f"page_{page.removesuffix('.md')}.py"
    checks = "\nassert y.shape == (2, 16384, 256)" if page == "README.md" else ""
    script.write_text("\n".join(blocks("python", PAGES[page])) + checks, encoding="utf-8")
    printed = finish(start(sys.executable, script, LAMBDA_SEQ_CACHE=str(tmp_path)))
    if page == "algorithms.md":
        assert "* chosen" in printed


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if blocks("py", text)])
def test_other_blocks_are_python(page):
    for block in blocks("py", PAGES[page]):
        compile(block, page, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in trainings() if line.startswith("data ") and ".csv" in line])
def test_data_commands_show_what_would_be_read(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"{word} {other},{word}" for word in ("good", "bad") for other in "abcdefghij"]
    Path("reviews.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["lambda-seq", *shlex.split(command)])
    cli.main()
    shown = capsys.readouterr().out
    assert re.search(r"^2 classes +train", shown, re.MULTILINE)
    assert Path("outputs/text_classification/data.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in trainings() if not line.startswith("data ")])
def test_training_commands_parse(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # configurations are found by their names
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # recipes would ask for the data set, again and again
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "argv", ["lambda-seq", *shlex.split(command), "--print_config"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    assert "seed_everything" in printed.out


def test_prediction_commands_parse():
    assert len(predictions()) >= 4
    for line in predictions():
        assert predicting.parser().parse_args(shlex.split(line)).input


def test_export_commands_parse():
    assert len(exports()) >= 3
    for line in exports():
        assert onnx_command.parser().parse_args(shlex.split(line)).model.startswith("outputs/")


def test_many_commands_are_shown():
    assert len(trainings()) >= 10
    assert sum("--ckpt_path last" in line for line in trainings()) >= 3


def test_every_algorithm_and_head_is_described():
    named = set(re.findall(r"^\| `(\w+)` \|", PAGES["algorithms.md"], re.MULTILINE))
    assert named == set(LF.ALGORITHMS) - {"auto"}
    assert set(re.findall(r'`"(\w+)"`', PAGES["networks.md"])) >= set(list_heads())


def test_scripts_and_records_exist():
    names = {name for text in PAGES.values() for name in re.findall(r"scripts/[\w/]+\.(?:py|md|png|json)", text)}
    assert {"scripts/quickstart.py", "scripts/check.py"} <= names
    missing = sorted(name for name in names if not (ROOT / name).is_file())
    assert not missing


def test_tests_that_are_named_exist():
    names = {name for text in PAGES.values() for name in re.findall(r"tests/[\w/]+(?:\.py)?", text)}
    missing = sorted(name for name in names if not (ROOT / name).exists())
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    prose = re.sub(r"```.*?```|`[^`]*`", "", PAGES[page], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        assert target.startswith("https://") or (folder / target).exists(), target


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install '.[docs]'")
def test_the_site_builds_strictly(tmp_path):
    """Each page is in the navigation, each link and anchor leads somewhere, each name of the API is found."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert "LambdaLayer1d" in api
    assert "dim_key" in api
