"""Configurations that come with the library, which `--config` takes by name from any folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "configs"
SUFFIXES = (".yaml", ".yml")
PARENTS = tuple(map(Path, (".", "tasks/configs", "lambda_seq/tasks/configs")))  # as checkouts have them
OPTIONS = ("--config", "-c")
FILE_NAME = re.compile(r"[\w.~/\\ -]+")  # anything else is a configuration itself, in one line


def configurations() -> dict[str, str]:
    """What each configuration is for, by its name: the comment that its file begins with, up to the first full stop."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.lstrip("# ") for line in lines[:3] if line.startswith("#"))
        found[path.stem] = re.split(r"[.:;] |\.$", comment)[0]
    return found


def configuration(name: str) -> Path:
    """The file that `--config NAME` means.

    Raises:
        ValueError: there is none.
    """
    return Path(_path(name, wanted=True))


def located(words: Sequence[str]) -> list[str]:
    """A command line with the paths of the library's configurations in place of their names.

    A file in the working folder takes precedence: `--config digits` is ./digits or ./digits.yaml, if there is one, and
    the library's otherwise. `--config digits.yaml` and `--config tasks/configs/digits.yaml` work alike, and so do other
    options whose value ends in .yaml or .yml (`--trainer FILE.yaml`).

    Raises:
        ValueError: `--config` names neither a file nor one of the library's configurations.
    """
    return list(_located(words))


def _located(words: Sequence[str]) -> Iterator[str]:
    previous = ""
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        wanted = (option if equals else previous) in OPTIONS and value not in ("", "null")
        yield f"{option}{equals}{_path(value, wanted)}" if wanted or value.endswith(SUFFIXES) else word
        previous = word


def check_order(words: Sequence[str]) -> None:
    """Refuse an option in front of a configuration that has it, too, and would silently take precedence.

    Args:
        words: of the command line, with paths of configurations, as from `located`.

    Raises:
        ValueError: there is one.
    """
    before: dict[str, str] = {}
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in OPTIONS:
            file = Path(value if equals else "".join(words[index + 1 : index + 2])).expanduser()
            own = _options_of(file) if before and file.is_file() else set()
            for name, shown in before.items():
                if name in own:
                    raise ValueError(
                        f"{shown} stands before --config {file.stem}, which has a value of its own; give --config first"
                    )
        elif option.startswith("--"):
            before[option[2:].replace(".init_args.", ".")] = option


def _options_of(file: Path) -> set[str]:
    """Options that a configuration has, as the command line names them; none of a file that cannot be read."""
    import yaml  # names of configurations are listed without it

    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return set()  # the parser says what is wrong with it
    found: set[str] = set()

    def visit(node: object, path: tuple[str, ...]) -> None:
        if path:
            found.add(".".join(path))
        if isinstance(node, dict):
            for name, value in node.items():
                visit(value, path if name in ("init_args", "class_path") else (*path, str(name)))

    visit(tree, ())
    return found


def _path(value: str, wanted: bool) -> str:
    """Of a name, the path; of a path, itself."""
    path = Path(value)
    if path.is_file():
        return value
    bare = wanted and not path.suffix and len(path.parts) == 1
    if bare:
        for suffix in SUFFIXES:
            if Path(value + suffix).is_file():
                return value + suffix
    shipped = FOLDER / f"{path.stem}.yaml"
    if (bare or path.suffix in SUFFIXES) and path.parent in PARENTS and shipped.is_file():
        return str(shipped)
    if wanted and FILE_NAME.fullmatch(value) and not path.exists():
        names = [shown.stem for shown in sorted(FOLDER.glob("*.yaml"))]
        near = get_close_matches(path.stem, names, n=3, cutoff=0.5)
        known = f"the nearest are {', '.join(near)}" if near else f"those are {', '.join(names)}"
        raise ValueError(
            f"--config={value}: there is no such file, and no configuration of the library has that name; {known}"
        )
    return value
