"""Where tests find the checkout, and data that may lie beside it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("LAMBDA_SEQ_DATA", ROOT.parent / "shared" / "data"))  # of tests that are skipped without
VECTORS = ROOT.parent / "shared" / "vectors"
