"""Run the quick tests on other versions of what we depend on: python3 scripts/check_versions.py oldest|newest [options]

"oldest" installs the lower bounds of pyproject.toml, "newest" whatever its upper bounds let pip take, each in an
environment of its own (.venv-oldest, .venv-newest; some gigabytes, as PyTorch comes with CUDA). Options are pytest's;
`-m ""` runs the slow tests too. Warnings are no errors here: other versions deprecate other things.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from bootstrap import ROOT, check_python, create, environment_python, pip, run

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,-]+\])?(?P<bounds>[^;]*)(?P<marker>;.*)?")
TESTS = ("pytest", "-q", "-n", "auto", "--dist", "loadfile", "-o", "filterwarnings=always", "-m", "not slow")


def main(which: str, options: list[str], root: Path = ROOT) -> int:
    """Install those versions anew, and test; the exit status."""
    check_python(sys.version_info[:3])
    environment = root / f".venv-{which}"
    shutil.rmtree(environment, ignore_errors=True)
    create(environment)
    python = environment_python(environment)
    wanted = oldest(requirements(root)) if which == "oldest" else requirements(root)
    pip(python, root, *wanted)
    pip(python, root, "--no-deps", "--editable", ".")
    return run(python, *TESTS, *options, root=root)


def requirements(root: Path) -> list[str]:
    """What the project and its tests need, as pyproject.toml has it; not the tools that check its text."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    others = ("ruff", "mypy", f"{project['name']}[")  # the last stands for the extra `train`
    return [
        *project["dependencies"],
        *extras["train"],
        *(line for line in extras["dev"] if not line.startswith(others)),
    ]


def oldest(lines: Iterable[str]) -> list[str]:
    """Each requirement at its lower bound.

    Raises:
        ValueError: one has none.
    """
    pinned = []
    for line in lines:
        found = REQUIREMENT.fullmatch(line)
        bounds = found["bounds"].split(",") if found else []
        least = [bound.strip()[2:].strip() for bound in bounds if bound.strip().startswith(">=")]
        if found is None or len(least) != 1:
            raise ValueError(f"{line!r}: expected one lower bound, as in name>=1.2")
        pinned.append(f"{found['name']}{found['extras'] or ''}=={least[0]}{found['marker'] or ''}")
    return pinned


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:2]):
        print(__doc__)
        sys.exit()
    if sys.argv[1:2] not in (["oldest"], ["newest"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
