"""Set-up without a network: what is installed when, and what is said when it cannot be."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from paths import ROOT

SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))
bootstrap = __import__("bootstrap")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in a folder with a space; `installed` lists what pip is asked for, `built` counts environments."""
    root = tmp_path / "a project"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    installed, built = [], []

    def create(self, environment):
        built.append(environment)
        python = bootstrap.environment_python(Path(environment))
        python.parent.mkdir(parents=True)
        python.touch()

    monkeypatch.setattr(bootstrap.venv.EnvBuilder, "create", create)
    monkeypatch.setattr(bootstrap, "pip", lambda python, root, *what: installed.append(" ".join(what)))
    monkeypatch.setattr(bootstrap, "runs", lambda python: python.exists())
    return root, installed, built


def test_once_is_enough(project, capsys):
    root, installed, built = project
    python = bootstrap.prepare(root=root)
    assert python == root / ".venv" / "bin" / "python"
    assert installed == ["torch==2.13.0", "--editable ."]
    assert "first time takes some minutes" in capsys.readouterr().out
    bootstrap.prepare(root=root)
    assert len(installed) == 2
    assert len(built) == 1


@pytest.mark.skipif(os.name == "nt", reason="links to programs need rights on Windows")
def test_environments_link_to_python(monkeypatch, tmp_path):
    """A copy that is being written cannot be run while another thread's new process has it open, too."""
    monkeypatch.setattr(bootstrap.venv.EnvBuilder, "_setup_pip", lambda self, context: None)
    bootstrap.create(tmp_path / "environment")
    python = bootstrap.environment_python(tmp_path / "environment")
    assert python.is_symlink()
    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert prefix.stdout.strip() == str(tmp_path / "environment")


def test_extras_are_added_and_kept(project):
    root, installed, built = project
    bootstrap.prepare(root=root)
    bootstrap.prepare(extras=["dev"], root=root)
    assert installed[-1] == "--editable .[dev]"
    bootstrap.prepare(root=root)
    bootstrap.prepare(extras=["dev"], root=root)
    assert len(installed) == 4
    (root / "pyproject.toml").write_text("[project]\nname = 'y'\n")
    bootstrap.prepare(root=root)
    assert installed[-1] == "--editable .[dev]"
    assert len(built) == 1


def test_an_interrupted_set_up_is_built_anew(project, monkeypatch):
    root, installed, built = project

    def stop(*what):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(bootstrap, "pip", stop)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.prepare(root=root)
    bootstrap.prepare(root=root)
    assert len(built) == 2
    assert len(installed) == 2


@pytest.mark.parametrize("damage", ["no python", "broken stamp", "moved"])
def test_a_broken_or_moved_environment_is_built_anew(project, damage):
    root, installed, built = project
    python = bootstrap.prepare(root=root)
    stamp = root / ".venv" / "lambda-seq.json"
    if damage == "no python":
        python.unlink()
    elif damage == "broken stamp":
        stamp.write_text("{")
    else:
        stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"root": "/elsewhere"}))
    bootstrap.prepare(root=root)
    assert len(built) == 2
    assert len(installed) == 4


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/quickstart.py"])
    with pytest.raises(SystemExit, match=r"Python 3.10.4; lambda_seq needs 3.11 .* python3.11 scripts/quickstart.py"):
        bootstrap.check_python((3, 10, 4))
    bootstrap.check_python((3, 11, 0))
    bootstrap.check_python((4, 0, 0))


def test_a_python_without_ensurepip_is_refused(project, monkeypatch):
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"ensurepip is missing.*apt install python3\.\d+-venv"):
        bootstrap.prepare(root=project[0])


def test_whether_a_python_runs(tmp_path):
    assert bootstrap.runs(Path(sys.executable))
    assert not bootstrap.runs(tmp_path / "missing")
    (tmp_path / "text").write_text("no program")
    assert not bootstrap.runs(tmp_path / "text")


def test_the_shells_other_installations_are_left_out(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org")
    found = bootstrap.clean_environ()
    assert "PYTHONPATH" not in found
    assert "PIP_USER" not in found
    assert found["PIP_INDEX_URL"] == "https://example.org"


def test_pip_that_fails_ends_with_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *given, **options: subprocess.CompletedProcess(given, 1))
    with pytest.raises(SystemExit, match=r"pip could not install torch==2.13.0.*run this again"):
        bootstrap.pip(Path("python"), tmp_path, "torch==2.13.0")


@pytest.mark.parametrize(("variable", "compiled"), [("", False), ("1", True)])
def test_modules_are_compiled_where_imports_may_not(variable, compiled, tmp_path, monkeypatch):
    given = []
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", variable)
    monkeypatch.setattr(
        bootstrap.subprocess, "run", lambda command, **_: given.extend(command) or subprocess.CompletedProcess(given, 0)
    )
    bootstrap.pip(Path("python"), tmp_path, "torch==2.13.0")
    assert ("--no-compile" not in given) == compiled
    assert given[-1] == "torch==2.13.0"


@pytest.mark.parametrize("script", ["quickstart", "check"])
def test_scripts_need_only_the_standard_library(script):
    """Imported in an isolated Python, without the packages of this environment."""
    code = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {script}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout


@pytest.mark.parametrize("script", ["quickstart", "check", "check_versions"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_installs_nothing(script, option, tmp_path):
    """By a Python without any packages, in a copy of the scripts alone."""
    for name in ("bootstrap", script):
        (tmp_path / f"{name}.py").write_text((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-E", "-s", "-S", tmp_path / f"{script}.py", option]
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"python3 scripts/{script}.py" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name != "__pycache__") == [".py", ".py"]


def test_check_goes_on_after_a_failure(monkeypatch):
    check = __import__("check")
    ran = []
    monkeypatch.setattr(check, "prepare", lambda extras, **_: Path("python"))
    monkeypatch.setattr(check, "second", lambda _: [])
    monkeypatch.setattr(check, "run", lambda python, *what: ran.append(what) or what[0] == "mypy")
    with pytest.raises(SystemExit, match="failed: mypy"):
        check.main(["-m", "not slow"])
    assert ran[-1] == ("pytest", *check.PARALLEL, "-m", "not slow")  # which an own -n, behind, overrides
    assert len(ran) == 4


def test_the_first_checks_do_not_wait_for_the_second_environment(monkeypatch, checks):
    check, ran = checks
    first_are_done, plain = Event(), check.run
    monkeypatch.setattr(check, "run", lambda python, *what: plain(python, *what) or first_are_done.set())

    def prepare(extras, name=".venv", **_):
        assert name == ".venv" or first_are_done.wait(20)
        return Path(name)

    monkeypatch.setattr(check, "prepare", prepare)
    check.main([])
    assert [place for place, *_ in ran] == [".venv"] * 4 + [".venv-torchvision"]


@pytest.fixture
def checks(monkeypatch):
    """scripts/check.py without its programs: those that ran, by the environment that they ran in."""
    check, ran = __import__("check"), []
    monkeypatch.setattr(check, "prepare", lambda extras, name=".venv", **_: Path(name))
    monkeypatch.setattr(check, "run", lambda python, *what: ran.append((str(python), *what)))
    return check, ran


def test_tests_that_need_torchvision_run_in_an_environment_of_their_own(checks, capsys):
    check, ran = checks
    check.main(["-x"])
    assert ran[-1] == (".venv-torchvision", "pytest", *check.PARALLEL, *check.THERE)
    assert all((ROOT / test.partition("::")[0]).exists() for test in check.THERE)
    check.main(["-x", "--one-environment"])
    assert ran[-1] == (".venv", "pytest", *check.PARALLEL, "-x")
    assert capsys.readouterr().out.count("All checks passed") == 2


def test_an_environment_that_cannot_be_made_fails_the_check(checks, monkeypatch, capsys):
    check, ran = checks

    def refused(extras, name=".venv", **_):
        if name != ".venv":
            sys.exit("error: pip could not install torchvision==0.29.1 (see above)")
        return Path(name)

    monkeypatch.setattr(check, "prepare", refused)
    with pytest.raises(SystemExit, match=r"failed: the environment .venv-torchvision could not be made"):
        check.main([])
    assert len(ran) == 4
    assert "pip could not install torchvision" in capsys.readouterr().out


def test_the_second_environment_is_kept_beside_the_first(project):
    root, installed, built = project
    check = __import__("check")
    for _ in range(2):
        bootstrap.prepare(root=root)
        bootstrap.prepare(root=root, **check.SECOND)
    assert [path.name for path in built] == [".venv", ".venv-torchvision"]
    assert installed[2:] == [
        "torch==2.14.1 torchvision==0.29.1",
        "--editable .[detection,dev,huggingface,onnx] timm lambda-networks local-attention",
    ]


def test_quickstart_names_the_results(monkeypatch, tmp_path, capsys):
    quickstart = __import__("quickstart")
    ran = []

    def run(python, *what):
        ran.append(what)
        folder = tmp_path / what[what.index("--output_dir") + 1]
        folder.mkdir(parents=True)
        summary = {"test/accuracy": 0.987, "best checkpoint": "c/best.ckpt", "curves": "c/curves.png"}
        (folder / "summary.json").write_text(json.dumps(summary))
        return 0

    monkeypatch.setattr(quickstart, "ROOT", tmp_path)
    monkeypatch.setattr(quickstart, "prepare", lambda extras: Path("python"))
    monkeypatch.setattr(quickstart, "run", run)
    quickstart.main(["--trainer.max_epochs=1"])
    shown = capsys.readouterr().out
    assert shown.count("98.7%") == 2
    assert str(tmp_path / "c" / "curves.png") in shown
    assert all(what[-1] == "--trainer.max_epochs=1" for what in ran)
