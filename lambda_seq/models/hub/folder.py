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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lambda_seq.layers import adopt_batch_norms

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
    new = (folder if exists else folder.absolute().parent) / f".{folder.absolute().name}-{secrets.token_hex(4)}"
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


def remove_unfinished(folder: Path) -> None:
    """Remove what saves to a folder have left behind that were killed; only while no other one is under way."""
    for place in (folder, folder.absolute().parent):
        for left in place.glob(f".{folder.absolute().name}-" + "[0-9a-f]" * 8):
            shutil.rmtree(left, ignore_errors=True)


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
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON ({error}): save the model again") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise ValueError(f"{file} names no network of lambda_seq: give a folder that save_pretrained wrote")
    if not isinstance(config.get("options"), dict):
        raise ValueError(f"{file} holds no options of the network: save the model again")
    return config


class Header(NamedTuple):
    """What a file of weights says of them, without them.

    Attributes:
        file: model.safetensors.
        shapes: of the weights, by name.
    """

    file: Path
    shapes: dict[str, tuple[int, ...]]

    def check_count(self, options: dict[str, Any]) -> None:
        """Raise ValueError if options ask for more blocks than there are weights."""
        for name in ("depth", "blocks"):
            count = options.get(name)
            counts = count if isinstance(count, list) else [count]
            if all(type(one) is int for one in counts) and sum(counts) > len(self.shapes):
                raise ValueError(f"{name}={count} is more than the {len(self.shapes)} weights in {self.file} belong to")

    def check_fit(self, model: nn.Module) -> None:
        """Raise ValueError unless these are the weights of the model, naming those that are not."""
        expected = {name: tuple(tensor.shape) for name, tensor in _own_tensors(model).items()}
        problems = [f"{name} is missing" for name in expected if name not in self.shapes]
        problems += [f"{name} is unknown" for name in self.shapes if name not in expected]
        problems += [
            f"{name} has shape {self.shapes[name]} in place of {shape}"
            for name, shape in expected.items()
            if self.shapes.get(name, shape) != shape
        ]
        if problems:
            more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise ValueError(f"{self.file} does not fit the network of {CONFIG}: {'; '.join(problems[:5])}{more}")

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Raise ValueError where a network that is built inside has many more weights than there are."""
        most, thread, count = 1000 + 4 * len(self.shapes), threading.get_ident(), 0

        def hook(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
            nonlocal count
            count += threading.get_ident() == thread
            if count > most:
                raise ValueError(f"a network of more than {most} weights, where {self.file} has {len(self.shapes)}")

        handle = register_module_parameter_registration_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def read_header(file: Path, save: str | None) -> Header:
    """Names and shapes of a file of weights.

    Args:
        file: model.safetensors.
        save: which save the config is of; None where it does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another save.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: save the model again")
    try:
        with safe_open(file, framework="pt") as opened:
            saved = (opened.metadata() or {}).get("save")
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({first_line(error)}): save the model again") from error
    if save and saved and save != saved:
        raise ValueError(
            f"{file} is of another save than {CONFIG} beside it, as one was interrupted: save the model again"
        )
    return Header(file, shapes)


def load_weights(model: nn.Module, header: Header) -> None:
    """Copy weights that fit into the network, which takes their dtype."""
    from safetensors.torch import load_file

    adopt_batch_norms(model, header.shapes)
    header.check_fit(model)
    tensors = load_file(header.file)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    model.load_state_dict(tensors, strict=False)  # strict above; other names of shared weights are not in the file


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that share memory under the first of their names."""
    found: dict[tuple[Any, ...], str] = {}
    tensors = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        place: tuple[Any, ...] = (name,)
        if tensor.is_meta:  # without memory, but one parameter is one all the same
            place = (id(tensor),)
        elif tensor.numel():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        found.setdefault(place, name)
    return {name: tensors[name] for name in found.values()}


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
