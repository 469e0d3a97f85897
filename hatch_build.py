"""How the tasks come into what is installed: lambda_seq/tasks is a symbolic link to tasks in a checkout.

Where links are not supported it is checked out as a text file. So a wheel takes the folder itself, whatever stands for
it; an editable installation, which imports from the checkout, needs the link.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LINK = "lambda_seq/tasks"


class TasksHook(BuildHookInterface):
    """Puts tasks in the place of the link."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include the folder, or refuse an editable installation that would come without it.

        Raises:
            RuntimeError: an editable installation of a checkout without links.
        """
        if version != "editable":
            build_data["force_include"]["tasks"] = LINK
        elif not (Path(self.root) / LINK).is_dir():
            raise RuntimeError(
                f"{LINK} is not a folder, as this checkout has no symbolic links, and an editable installation needs "
                "it. Turn links on (Windows: developer mode) and check it out again: git config core.symlinks true, "
                f"then git checkout -- {LINK}. Or install a copy: pip install ."
            )
