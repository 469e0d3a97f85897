"""Which versions are tested: the lower bounds of pyproject.toml, each of which must be one that pip can install."""

import re
import sys
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
check_versions = __import__("check_versions")


def test_lower_bounds_are_pinned():
    lines = ["torch>=2.8,<2.16", "jsonargparse[signatures]>=4.41,<5", "lightning!=2.6.2,>=2.6", "pillow >= 10"]
    wanted = ["torch==2.8", "jsonargparse[signatures]==4.41", "lightning==2.6", "pillow==10"]
    assert check_versions.oldest(lines) == wanted


def test_a_marker_stays():
    lines = ["triton>=3.4; sys_platform == 'linux'"]
    wanted = ["triton==3.4; sys_platform == 'linux'"]
    assert check_versions.oldest(lines) == wanted


@pytest.mark.parametrize("line", ["torch", "torch<3", "torch==2.8", "torch @ file:///wheel", "torch>=2,>=3"])
def test_a_dependency_without_one_is_refused(line):
    with pytest.raises(ValueError, match=r"expected one lower bound"):
        check_versions.oldest([line])


def test_every_dependency_of_the_project_has_one():
    pinned = check_versions.oldest(check_versions.requirements(ROOT))
    names = {Requirement(line).name for line in pinned}
    assert {"torch", "lightning", "datasets", "pytest"} <= names
    assert not {"ruff", "mypy"} & names  # they check text, not behaviour
    assert "lambda-seq" not in names  # by which `dev` has the packages of `train`


def test_what_is_installed_is_within_the_bounds():
    for line in check_versions.requirements(ROOT):
        requirement = Requirement(re.split(r"\s*#", line)[0])
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(version(requirement.name).split("+")[0]), requirement


def test_both_are_installed_and_tested(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(check_versions, "create", lambda folder: asked.append(folder.name))
    monkeypatch.setattr(check_versions, "pip", lambda python, root, *what: asked.append(what))
    monkeypatch.setattr(check_versions, "run", lambda python, *what, root: asked.append(what) or 3)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert check_versions.main("oldest", ["-k", "resume"], tmp_path) == 3
    assert asked[0] == ".venv-oldest"
    assert all("==" in requirement for requirement in asked[1])
    assert asked[-1][-2:] == ("-k", "resume")
    assert asked[-1][asked[-1].index("-m") + 1] == "not slow"
