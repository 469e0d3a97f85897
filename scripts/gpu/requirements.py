"""What the GPU report needs to be installed, and what it goes without. Nothing but Python's standard library."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Need:
    """A package.

    Args:
        module: that is imported.
        package: that pip installs.
        without: what is left out without it; "" if nothing works.
    """

    module: str
    package: str
    without: str = ""

    @property
    def version(self) -> str | None:
        """The one installed; "?" if it does not say, None if there is none."""
        try:
            if importlib.util.find_spec(self.module) is None:
                return None
        except (ImportError, ValueError):
            return None
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return "?"


NEEDS = (
    *(Need(name, name) for name in ("torch", "numpy", "einops", "jaxtyping", "safetensors", "huggingface_hub", "rich")),
    Need("triton", "triton", "kernels written in Triton, flex_attention, compiled networks"),
    Need("matplotlib", "matplotlib", "pictures"),
    Need("scipy", "scipy", "rates fitted to whole algorithms"),
    Need("pytest", "pytest", "the section tests"),
    Need("hypothesis", "hypothesis", "the section tests"),
    Need("pytest_timeout", "pytest-timeout", "the section tests"),
    Need("lightning", "lightning", "trainings by the command line"),
    Need("jsonargparse", "jsonargparse[signatures]", "trainings by the command line"),
    Need("datasets", "datasets", "trainings by the command line"),
    Need("lambda_networks", "lambda-networks", "the comparison with pip's lambda-networks"),
)


def lines(needs: Sequence[Need] = NEEDS) -> tuple[list[str], bool]:
    """What is installed and what is missing, in words; and whether the report can be made."""
    versions = {need: need.version for need in needs}
    here = ", ".join(f"{need.package} {version}" for need, version in versions.items() if version is not None)
    absent = [need for need, version in versions.items() if version is None]
    found = [f"installed: {here}"]
    found += [f"missing: {need.package}; without it: {need.without or 'nothing works'}" for need in absent]
    if absent:
        packages = " ".join(f"'{need.package}'" if "[" in need.package else need.package for need in absent)
        found.append(f"to install what is missing, where there is a network: pip install {packages}")
    return found, all(need.without for need in absent)
