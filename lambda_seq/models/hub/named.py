"""Trained networks by name: folders of `save_pretrained` on this machine, beside an index that says what each is.

A folder of networks holds NAME/ for each, and pretrained.json:

    {"NAME": {"sha256": {"config.json": …, "model.safetensors": …}, "about": {"data": …, "figures": {…}, …}}}

The environment variable LAMBDA_SEQ_MODELS names such folders, parted as those of PATH are; without it,
~/.cache/lambda_seq/models is one. Last comes the folder of the package itself, `trained`, with the networks that it
brings along.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambda_seq.models.hub.folder import CARD, FILES, read_config, replaced

INDEX, VARIABLE = "pretrained.json", "LAMBDA_SEQ_MODELS"
USUAL = Path("~/.cache/lambda_seq/models")
SHIPPED = Path(__file__).parent / "trained"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
LOADED = re.compile(r"""((?:load_predictor|from_pretrained)\()('[^']*'|"[^"]*")""")  # in a card, the name behind


@dataclass(frozen=True)
class Pretrained:
    """A trained network of this machine.

    Attributes:
        name: that `from_pretrained` and `load_predictor` take.
        folder: of its files.
        sha256: of each of them.
        about: what it was trained on, how, and what it reaches.
    """

    name: str
    folder: Path
    sha256: Mapping[str, str]
    about: Mapping[str, Any]

    def verify(self) -> Path:
        """The folder, whose files are those of the index.

        Raises:
            ValueError: one is missing, or differs; names it.
        """
        for name, expected in self.sha256.items():
            file = self.folder / name
            found = _digest(file) if file.is_file() else "missing"
            if found != expected:
                what = found if found == "missing" else f"not the one that {INDEX} beside it lists"
                raise ValueError(f"{file} is {what}: download {self.name!r} again, or train it again")
        return self.folder


def pretrained() -> dict[str, Pretrained]:
    """All trained networks of this machine by name, those of earlier folders first.

    Raises:
        ValueError: an index is damaged.
    """
    found: dict[str, Pretrained] = {}
    for place in _places():
        for name, entry in _read(place / INDEX).items():
            found.setdefault(name, Pretrained(name, place / name, entry["sha256"], entry["about"]))
    return found


def list_pretrained() -> list[str]:
    """Names of the trained networks on this machine, which `from_pretrained` and `load_predictor` take.

    They are looked for in the folders that the environment variable LAMBDA_SEQ_MODELS names, else in
    ~/.cache/lambda_seq/models; last come those that the package brings along.

    Raises:
        ValueError: the index of a folder is damaged.
    """
    return list(pretrained())


def keep(place: Path, name: str, model: Path, about: Mapping[str, Any]) -> Pretrained:
    """Copy a folder that `save_pretrained` wrote to a folder of networks, and list it in the index; its card names it.

    Args:
        place: the folder of networks; made if there is none.
        name: of letters, digits and _ . -; one that there is already is replaced.
        model: the folder to copy.
        about: what people want to know: data, command, figures.

    Raises:
        ValueError: a name of other characters, or the folder holds no network.
        FileNotFoundError: there is no such folder.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: expected letters, digits, _, - and points")
    read_config(model / FILES[-1])
    entries = _read(place / INDEX)
    with replaced(place / name) as new:
        for file in FILES:
            if (model / file).is_file():
                (new / file).write_bytes((model / file).read_bytes())
        if (new / CARD).is_file():
            card = (new / CARD).read_text(encoding="utf-8")
            (new / CARD).write_text(LOADED.sub(rf"\1{name!r}", card), encoding="utf-8")
    digests = {file: _digest(place / name / file) for file in FILES if (place / name / file).is_file()}
    entries[name] = {"sha256": digests, "about": dict(about)}
    beside = place / f".{INDEX}.{os.getpid()}"
    beside.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(place / INDEX)
    return Pretrained(name, place / name, digests, about)


def _places() -> list[Path]:
    given = os.environ.get(VARIABLE)
    named = given.split(os.pathsep) if given else [str(USUAL)]
    return [*(Path(place).expanduser() for place in named if place), SHIPPED]


def _read(index: Path) -> dict[str, dict[str, Any]]:
    """The entries of an index, none where there is no such file."""
    if not index.is_file():
        return {}
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        whole = all(
            NAME.fullmatch(name) and isinstance(entry["about"], dict) and {*entry["sha256"]} <= {*FILES}
            for name, entry in entries.items()
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is damaged ({error!r}): download it again, or train its networks again") from error
    if not whole:
        raise ValueError(f"{index} is no index of trained networks: download it again, or train its networks again")
    return entries


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
