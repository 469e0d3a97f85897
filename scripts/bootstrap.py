"""Set-up of the project's own environment, .venv, with nothing but Python's standard library.

A stamp in the environment says what was installed. A set-up that was interrupted, a folder that was moved and an
environment that does not run are noticed by it and built anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"  # installed first, as a bare `torch` would take whichever build is newest
OLDEST = (3, 11)
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV")  # of the shell


def prepare(
    extras: Sequence[str] = (),
    root: Path = ROOT,
    *,
    name: str = ".venv",
    torch: Sequence[str] = (TORCH,),
    beside: Sequence[str] = (),
) -> Path:
    """The Python of an environment in which the project is installed; sets up whatever is missing.

    Args:
        extras: optional dependencies that are needed, such as "dev".
        root: folder of the project.
        name: of the environment's folder.
        torch: what is installed first, so that nothing else chooses another torch.
        beside: what is installed last.
    """
    check_python(sys.version_info[:3])
    environment = root / name
    python, stamp = environment_python(environment), environment / "lambda-seq.json"
    wanted = fingerprint(root) | {"torch": " ".join([*torch, *beside])}
    found = read_stamp(stamp)
    if found and found["root"] != wanted["root"]:
        found = None  # moved or copied: paths in it lead elsewhere
    if environment.exists() and (found is None or not runs(python)):
        print(f"{environment} is unfinished, moved or broken: it is built anew", flush=True)
        shutil.rmtree(environment)
        found = None
    if found is None:
        print(f"Setting up {environment}; the first time takes some minutes", flush=True)
        create(environment)
    have = set(found["extras"]) if found else set()
    if found != wanted | {"extras": sorted(have)} or not set(extras) <= have:
        stamp.unlink(missing_ok=True)
        have |= set(extras)
        pip(python, root, *torch)
        pip(python, root, "--editable", f".[{','.join(sorted(have))}]" if have else ".", *beside)
        partial = stamp.with_suffix(".partial")
        partial.write_text(json.dumps(wanted | {"extras": sorted(have)}), encoding="utf-8")
        partial.replace(stamp)
    return python


def check_python(version: Sequence[int]) -> None:
    """End with a message if this Python is too old."""
    if tuple(version[:2]) < OLDEST:
        found, oldest = ".".join(map(str, version)), ".".join(map(str, OLDEST))
        sys.exit(f"error: this is Python {found}; lambda_seq needs {oldest} or newer: run python{oldest} {sys.argv[0]}")


def create(environment: Path) -> None:
    """Make an environment that has pip, or end with a message.

    Python is linked to, as `python -m venv` does: a copy of it may be open for writing, in a process that another
    thread begins meanwhile, when it is run ("Text file busy").
    """
    check_venv()
    venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(environment)


def check_venv() -> None:
    """End with a message if Python cannot make environments, as on Debian without a package of its own for that."""
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        sys.exit(f"error: Python's module ensurepip is missing; install it, on Debian or Ubuntu: apt install {package}")


def environment_python(environment: Path) -> Path:
    """Where an environment has its Python."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(root: Path) -> dict[str, Any]:
    """What an installation depends on, besides its extras."""
    return {
        "root": str(root),
        "pyproject": hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest(),
        "torch": TORCH,
    }


def read_stamp(stamp: Path) -> dict[str, Any] | None:
    """What was installed, or None if an installation has not come to its end."""
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"root", "pyproject", "torch", "extras"} <= found.keys() else None


def runs(python: Path) -> bool:
    """Whether this Python starts, is new enough and has pip."""
    probe = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.run([python, "-c", probe], env=clean_environ(), capture_output=True).returncode == 0
    except OSError:
        return False


def clean_environ() -> dict[str, str]:
    """The shell's variables without those that would lead to other installations."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}


def pip(python: Path, root: Path, *what: str) -> None:
    """Install something, or end with a message."""
    print("Installing", *what, flush=True)
    options = ["--quiet", "--disable-pip-version-check"]
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        options.append("--no-compile")  # Python compiles what is imported, a part of it all: a third of the time
    command = [str(python), "-m", "pip", "install", *options, *what]
    code = subprocess.run(command, cwd=root, env=clean_environ()).returncode
    if code:
        sys.exit(f"error: pip could not install {' '.join(what)} (see above); check the network and run this again")


def run(python: Path, *what: str, root: Path = ROOT) -> int:
    """Run a module of the environment in the project's folder; its exit status."""
    print("+ python -m", *what, flush=True)
    return subprocess.run([str(python), "-m", *what], cwd=root, env=clean_environ()).returncode
