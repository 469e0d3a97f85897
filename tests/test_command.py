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
from lambda_seq.__main__ import COMMANDS, SHOWN, main, see_own_folder
from lambda_seq.tasks import AT_ONCE, INSTALL, WHERE_NEEDED, cli
from lambda_seq.tasks.configurations import configurations
from lambda_seq.tasks.inspection import guessing


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
def test_help_is_one_screen(monkeypatch, capsys, words, status):
    found, shown = run(monkeypatch, capsys, *words)
    assert found == status
    for word in (*COMMANDS, *SHOWN, "--config NAME", "--version"):
        assert word in shown
    assert len(shown.splitlines()) <= 24
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert set(SHOWN) <= set(configurations())


def test_commands_are_those_that_there_are():
    parsed = set(cli.LambdaCLI.subcommands()) - {guessing.COMMAND}  # which is called as
    assert set(COMMANDS) == {*parsed, "data", "configs", "export"}


def test_configurations_are_listed_and_shown(monkeypatch, capsys):
    status, shown = run(monkeypatch, capsys, "configs")
    assert status == 0
    assert [line.split()[0] for line in shown.splitlines()[: len(configurations())]] == list(configurations())
    assert all(len(line) <= 120 for line in shown.splitlines())
    status, shown = run(monkeypatch, capsys, "configs", "digits")
    assert status == 0
    assert shown == (ROOT / "tasks" / "configs" / "digits.yaml").read_text(encoding="utf-8")
    assert "usage: lambda-seq configs" in run(monkeypatch, capsys, "configs", "--help")[1]
    assert "the nearest are digits" in run(monkeypatch, capsys, "configs", "digit")[0]


@pytest.mark.parametrize(("word", "meant"), [("fitt", "fit"), ("Test", "test"), ("config", "configs"), ("xyz", None)])
def test_an_unknown_command_ends_in_one_line(monkeypatch, capsys, word, meant):
    status, _ = run(monkeypatch, capsys, word, "--config", "digits")
    assert status.startswith(f"error: {word}: there is no such command; ")
    assert (f"did you mean {meant}?" in status) == (meant is not None)
    assert "Commands are fit, validate" in status


@pytest.mark.parametrize("option", ["--help", "--version", "configs", "fitt"])
def test_none_waits_for_torch(option):
    code = (
        f"import sys; sys.argv = ['lambda-seq', {option!r}]\n"
        "from lambda_seq.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'numpy', 'yaml'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_own_classes_are_seen_once_ours_are_imported(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/programs", *sys.path])
    see_own_folder()
    see_own_folder()
    assert sys.path[:2] == [str(tmp_path), "/programs"]


def test_an_unknown_configuration_ends_in_one_line(monkeypatch, capsys):
    status, _ = run(monkeypatch, capsys, "fit", "--config", "digit")
    assert status.startswith("error: --config=digit: there is no such file")


def test_all_else_is_handed_on(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(sys, "path", list(sys.path))
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
