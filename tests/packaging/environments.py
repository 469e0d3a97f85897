"""Archives of this checkout, and environments in which its wheel is installed.

Nothing is downloaded: an environment sees the packages that are installed here. Given requirements, it has links to
those alone that they bring, directly or not.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

INSTALLED = Path(distribution("torch").locate_file(""))  # site-packages of this environment


def build(target: str, folder: Path, source: Path = ROOT) -> Path:
    """The archive, "wheel" or "sdist", that a source folder makes."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, env=clean(), check=True, capture_output=True, text=True)
    (archive,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return archive


def install(wheel: Path, folder: Path, requirements: Iterable[str] | None = None) -> Path:
    """The folder of programs of a new environment with the wheel and what the requirements bring, or all there is."""
    venv.EnvBuilder(with_pip=False).create(folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(programs / "python")]
    command = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, env=clean(), check=True, capture_output=True, text=True)
    packages = INSTALLED if requirements is None else _linked(requirements, folder / "linked")
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    (Path(site) / "dependencies.pth").write_text(f"{packages}\n")
    return programs


def _linked(requirements: Iterable[str], folder: Path) -> Path:
    folder.mkdir()
    found, wanted = set(), list(requirements)
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        wanted += distribution(name).requires or ()
        tops = {file.parts[0] for file in distribution(name).files or () if file.suffix != ".pth"}
        for top in tops - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(INSTALLED / top)
    return folder


def clean(**variables: str) -> dict[str, str]:
    """The environment's variables without a path to this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | variables


def run(*words: Any, cwd: Path, code: int = 0, **variables: str) -> tuple[str, str]:
    """What a command writes to standard output and error; raises if it ends with another status."""
    command = list(map(str, words))
    done = subprocess.run(command, cwd=cwd, env=clean(**variables), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"exit status {done.returncode}, expected {code}:\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr
