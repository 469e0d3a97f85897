"""Set up all that is needed and run every check: python3 scripts/check.py [options of pytest]

Ruff (lint and format), mypy and all tests, slow ones too; `-m "not slow"` leaves these out. Tests run in a process per
core, eight at most; `-n 0` runs them in one, which a debugger needs.
"""

from __future__ import annotations

import sys

from bootstrap import prepare, run

# The tests of a file stay together, as they share what it trains; tests/scheduling.py says which do not, and the order.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile")


def main(options: list[str]) -> None:
    """Run all checks, even after a failed one; the exit status says whether all passed."""
    if {"-h", "--help"} & set(options):
        print(__doc__)
        return
    python = prepare(extras=["dev"])
    checks = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("pytest", *PARALLEL, *options))
    failed = [" ".join(check) for check in checks if run(python, *check)]
    if failed:
        sys.exit(f"error: failed: {'; '.join(failed)}")
    print("All checks passed")


if __name__ == "__main__":
    main(sys.argv[1:])
