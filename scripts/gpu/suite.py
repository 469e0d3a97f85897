"""Section tests: those of the algorithms in tests/functional, which take --device."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measuring import NotInstalledError, WrongResultError
from benchmarks.recording import Record
from benchmarks.reporting import Table

from gpu.running import Part, Section, Settings

ROOT = Path(__file__).resolve().parents[2]
API = "tests/functional/test_api.py"
FILES = {
    "float64": (API, "equals_the_definition"),
    "float32": (API, "float32"),
    "half precision": (API, "half_precision"),
    "properties": (API, "not equals_the_definition and not float32 and not half_precision"),
    "kernels": ("tests/functional/position", ""),
}
TINY = {"properties": (API, "empty_batch or second_derivatives")}
COUNTS = re.compile(r"(\d+) (passed|failed|error|skipped)")


def cells(settings: Settings) -> list[Record]:
    """Groups of tests."""
    files = settings.sized(FILES, TINY)
    return [{"tests": name} for name, (file, _) in files.items() if (ROOT / file).exists()]


def run(key: Record, settings: Settings) -> Record:
    """Run a group in a process of its own.

    Raises:
        NotInstalledError: pytest is not.
        WrongResultError: a test failed.
    """
    for module, package in (("pytest", "pytest"), ("hypothesis", "hypothesis"), ("pytest_timeout", "pytest-timeout")):
        if importlib.util.find_spec(module) is None:
            raise NotInstalledError(f"pip install {package}")
    file, chosen = settings.sized(FILES, TINY)[key["tests"]]
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=line", file]
    command += ["--device", settings.device, *(["-k", chosen] if chosen else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    counts = {word: int(count) for count, word in COUNTS.findall(lines[-1])} if lines else {}
    if not counts:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {(done.stderr or done.stdout).strip()[-250:]}")
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode:
        found = f"{counts.get('failed', 0) + counts.get('error', 0)} of {sum(counts.values())} failed"
        raise WrongResultError(f"{found}: {'; '.join(failed[:6])}"[:1500])
    return {"counts": counts}


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """One table."""
    rows = [
        (
            one["key"]["tests"],
            str(one.get("counts", {}).get("passed", "")),
            str(one.get("counts", {}).get("skipped", "")),
            f"{one['taken']:.0f} s",
            "" if one["status"] == "measured" else f"{one['status']}: {one['message']}",
        )
        for one in records
    ]
    yield Table(f"pytest --device {settings.device}", ("tests", "passed", "skipped", "time", "failed"), tuple(rows))


SECTION = Section("tests", "Tests on the device", 55, cells, run, parts)
