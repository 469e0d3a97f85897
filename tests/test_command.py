"""What the command answers at once, and what it hands on."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

import lambda_seq
from lambda_seq.__main__ import main
from lambda_seq.tasks import AT_ONCE, INSTALL, WHERE_NEEDED, cli
from lambda_seq.tasks.configurations import configurations


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["lambda-seq", *words])
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().out


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version") == (0, f"lambda-seq {lambda_seq.__version__}\n")


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["-h"], 0), ([], 2)])
def test_help_names_commands_and_configurations(monkeypatch, capsys, words, status):
    found, shown = run(monkeypatch, capsys, *words)
    assert found == status
    for word in ("fit", "validate", "test", "predict", "--config NAME", *configurations()):
        assert word in shown
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_neither_waits_for_torch():
    for option in ("--help", "--version"):
        code = (
            f"import sys; sys.argv = ['lambda-seq', {option!r}]\n"
            "from lambda_seq.__main__ import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_an_unknown_configuration_ends_in_one_line(monkeypatch, capsys):
    status, _ = run(monkeypatch, capsys, "fit", "--config", "digit")
    assert status.startswith("error: --config=digit: there is no such file")


def test_all_else_is_handed_on(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(cli, "main", lambda: asked.append(sys.argv[1:]))
    run(monkeypatch, capsys, "fit", "--config", "digits", "--help")
    assert asked == [["fit", "--config", "digits", "--help"]]


@pytest.mark.parametrize("name", ["kornia", "sklearn.datasets"])
def test_a_package_that_is_missed_later_comes_with_the_remedy(name):
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    assert cli._message(error) == f"No module named {name!r}: {INSTALL}"
    assert cli._message(ModuleNotFoundError("No module named 'mine'", name="mine")) == "No module named 'mine'"


def test_packages_that_are_looked_for_are_those_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {canonicalize_name(Requirement(line).name) for line in project["optional-dependencies"]["train"]}
    found = packages_distributions()
    assert {canonicalize_name(found[name][0]) for name in (*AT_ONCE, *WHERE_NEEDED)} == extra
