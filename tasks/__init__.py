"""Training from the command line: Lightning modules, data modules and their configurations.

It needs the packages of the extra `train`, which the layers and networks do without.

Raises:
    ModuleNotFoundError: one of those that are imported at once is missing.
"""

from importlib.util import find_spec

AT_ONCE = (
    *("lightning", "jsonargparse", "torchmetrics", "datasets", "pyarrow", "yaml", "tokenizers", "PIL"),
    *("soundfile", "soxr", "matplotlib", "rich", "jinja2"),
)
WHERE_NEEDED = ("kornia", "scipy", "sklearn", "tensorboard")
INSTALL = 'pip install "lambda-seq[train]"'

_missing = [name for name in AT_ONCE if find_spec(name) is None]
if _missing:
    raise ModuleNotFoundError(f"training needs {', '.join(_missing)}: {INSTALL}", name=_missing[0])
