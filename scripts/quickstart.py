"""Set up all that is needed and train two lambda networks on handwritten digits: python3 scripts/quickstart.py

The digits come with scikit-learn. One network sees them as images, the other as sequences of 64 pixels. Options are
passed on to both trainings, for example --trainer.max_epochs 5.
"""

from __future__ import annotations

import json
import sys

from bootstrap import ROOT, prepare, run

JOBS = {"digits": "as images", "digits_sequence": "as pixel sequences"}


def main(options: list[str]) -> None:
    """Train, then say how well and where the results are."""
    if {"-h", "--help"} & set(options):
        print(__doc__)
        return
    python = prepare(extras=["train"])
    for name in JOBS:
        fit = ("fit", "--config", name, "--output_dir", f"outputs/{name}", "--overwrite")
        code = run(python, "lambda_seq", *fit, *options)
        if code:
            sys.exit(code)
    for name, what in JOBS.items():
        summary = json.loads((ROOT / "outputs" / name / "summary.json").read_text(encoding="utf-8"))
        print(f"\nDigits {what}: {summary['test/accuracy']:.1%} of the test images are recognised")
        print(f"  checkpoint  {ROOT / summary['best checkpoint']}")
        print(f"  curves      {ROOT / summary['curves']}")


if __name__ == "__main__":
    main(sys.argv[1:])
