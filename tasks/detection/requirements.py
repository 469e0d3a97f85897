"""What detection needs beside the rest of training."""

from importlib.util import find_spec

NEEDED = ("torchvision", "pycocotools")
INSTALL = 'pip install "lambda-seq[detection]"'


def require() -> None:
    """Say what to install.

    Raises:
        ModuleNotFoundError: torchvision or pycocotools is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"detection needs {' and '.join(missing)}: {INSTALL}", name=missing[0])
