"""Set up all that is needed and run every check: python3 scripts/check.py [options of pytest]

Ruff (lint and format), mypy and all tests, slow ones too; `-m "not slow"` leaves these out. Tests run in a process per
core, eight at most; `-n 0` runs them in one, which a debugger needs.

A second environment, .venv-torchvision, has the newest torch that is allowed, with the torchvision of that release, and
the packages that results are compared with; tests that need these run there. `--one-environment` leaves it out.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bootstrap import prepare, run

# The tests of a file stay together, as they share what it trains; tests/scheduling.py says which do not, and the order.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile")

# No torchvision is made for the torch of the first environment that loads without a GPU's libraries.
SECOND: dict[str, Any] = {
    "extras": ["dev", "detection", "huggingface", "onnx"],
    "name": ".venv-torchvision",
    "torch": ("torch==2.14.1", "torchvision==0.29.1"),
    "beside": ("timm", "lambda-networks", "local-attention"),
}
ALONE = "--one-environment"
THERE = (
    "tests/tasks/detection",
    "tests/scripts/test_paper_detectors.py",
    "tests/interop/test_interop_timm.py",
    "tests/interop/test_timm_models.py",
    "tests/interop/test_interop_lambda_networks.py",
    "tests/interop/huggingface",
    "tests/interop/test_interop_onnx.py",
    "tests/interop/test_onnx_command.py",
    "tests/test_docs.py::test_python_blocks_run[export.md]",
    "tests/scripts/test_benchmark.py::test_methods_compute_what_they_should",
    "tests/scripts/test_benchmark.py::test_methods_compute_what_they_should_on_images",
)


def main(options: list[str]) -> None:
    """Run all checks, even after a failed one; the exit status says whether all passed."""
    if {"-h", "--help"} & set(options):
        print(__doc__)
        return
    given = [option for option in options if option != ALONE]
    checks = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("pytest", *PARALLEL, *given))
    with ThreadPoolExecutor(1) as beside:  # gigabytes to unpack take one core minutes, and the checks begin on another
        there = None if ALONE in options else beside.submit(prepare, **SECOND)
        python = prepare(extras=["dev"])
        failed = [" ".join(check) for check in checks if run(python, *check)]
        if there is not None:
            failed += second(there)
    if failed:
        sys.exit(f"error: failed: {'; '.join(failed)}")
    print("All checks passed")


def second(environment: Future[Path]) -> list[str]:
    """Run the tests that need the second environment; what failed, its installation included."""
    try:
        python = environment.result()
    except SystemExit as error:
        print(error, flush=True)
        return [f"the environment {SECOND['name']} could not be made, {ALONE} leaves it out"]
    check = ("pytest", *PARALLEL, *THERE)
    return [f"{' '.join(check)} in {SECOND['name']}"] if run(python, *check) else []


if __name__ == "__main__":
    main(sys.argv[1:])
