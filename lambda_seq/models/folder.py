"""A saved model's folder: files that are whole whenever the process is killed, and that run no code when read.

config.json         name and options for `create_model`, labels, preprocessing, version of the library
model.safetensors   weights; shared ones once
tokenizer.json      if the model has a `tokenizers.Tokenizer`
README.md           the model card
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "model.safetensors", "tokenizer.json", "README.md"
FILES = (WEIGHTS, TOKENIZER, CARD, CONFIG)  # in the order in which they are replaced


def write_folder(
    folder: Path, model: nn.Module, config: dict[str, Any], tokenizer: Tokenizer | None, readme: str
) -> None:
    """Write all files of a model; a kill leaves those that were there, or the new ones, each of them whole."""
    from safetensors.torch import save_file

    with replaced(folder) as new:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _own_tensors(model).items()}
        save_file(tensors, new / WEIGHTS, metadata={"format": "pt", "save": config["save"]})
        if tokenizer is not None:
            (new / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        (new / CARD).write_text(readme, encoding="utf-8")
        (new / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write files in, which take the place of those in `folder` once the block has ended without an error.

    A new folder appears whole; in an existing one each file changes at once, the config last.
    """
    exists = folder.is_dir()
    new = (folder if exists else folder.absolute().parent) / f".{folder.name}-{secrets.token_hex(4)}"
    new.mkdir(parents=True)
    try:
        yield new
        for file in new.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())  # on the disk before it has its name
        if not exists:
            new.rename(folder)
            return
        for name in FILES:
            if (new / name).exists():
                (new / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)  # the tokenizer of an earlier model
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_config(file: Path) -> dict[str, Any]:
    """The entries of a config.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or not of a model.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: give a folder that save_pretrained wrote")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}): save the model again") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise ValueError(f"{file} names no network of lambda_seq: give a folder that save_pretrained wrote")
    if not isinstance(config.get("options"), dict):
        raise ValueError(f"{file} holds no options of the network: save the model again")
    return config


def load_weights(model: nn.Module, file: Path, save: str | None) -> None:
    """Copy the weights of a file into the network, which takes their dtype.

    Args:
        model: the network.
        file: model.safetensors.
        save: which save the config is of; None where it does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another save, or does not fit, naming weights that do not.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: save the model again")
    try:
        with safe_open(file, framework="pt") as opened:
            saved = (opened.metadata() or {}).get("save")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({first_line(error)}): save the model again") from error
    if save and saved and save != saved:
        raise ValueError(
            f"{file} is of another save than {CONFIG} beside it, as one was interrupted: save the model again"
        )
    expected = _own_tensors(model)
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} in place of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{file} does not fit the network of {CONFIG}: {'; '.join(problems[:5])}{more}")
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    model.load_state_dict(tensors, strict=False)  # strict above; other names of shared weights are not in the file


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that share memory under the first of their names."""
    found: dict[tuple[Any, ...], str] = {}
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        found.setdefault(place, name)
    return {name: tensors[name] for name in found.values()}


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
