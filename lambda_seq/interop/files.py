"""Checkpoints of others: files read without running code in them, and repositories of the hub."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order in which they are looked for
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")  # where training scripts keep the weights


class Checkpoint(NamedTuple):
    """A file of weights, and the config.json beside it; None where there is none."""

    weights: Path
    config: dict[str, Any] | None


def locate(
    name_or_path: str | os.PathLike[str],
    repository: str | None,
    *,
    advice: str,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
) -> Checkpoint:
    """The file of weights of a path, or of a repository of the hub where nothing lies at the path.

    Args:
        name_or_path: a file of weights, or a folder as the hub has them.
        repository: "owner/name" that `name_or_path` means; None if it can mean none.
        advice: what to give where nothing lies at the path and it is no repository.
        revision: branch, tag or commit of the repository.
        cache_dir: where downloads are kept.
        token: of the hub.

    Raises:
        FileNotFoundError: nothing there.
        ConnectionError: the hub was not reached and the cache does not hold the file.
        ValueError: a file of another kind.
    """
    path = Path(name_or_path)
    if path.is_dir():
        found = [path / name for name in WEIGHTS if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"name_or_path={str(path)!r} holds neither {' nor '.join(WEIGHTS)}: give the file")
        return Checkpoint(found[0], _config(path / CONFIG))
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"name_or_path={str(path)!r}: expected a file that ends in {', '.join(SUFFIXES)}")
        return Checkpoint(path, _config(path.parent / CONFIG) if path.name in WEIGHTS else None)
    missing = f"name_or_path={str(name_or_path)!r} is no file or folder here"
    if repository is None:
        raise FileNotFoundError(f"{missing}, and no name of the hub: {advice}")
    return _download(missing, repository, revision=revision, cache_dir=cache_dir, token=token)


def _download(missing: str, repository: str, **options: Any) -> Checkpoint:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        config = _config(Path(hf_hub_download(repository, CONFIG, **options)))
        for name in WEIGHTS:
            try:
                return Checkpoint(Path(hf_hub_download(repository, name, **options)), config)
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"revision={options['revision']!r}: the hub's {repository} has no such branch, tag or commit"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{missing}, and the hub has no repository {repository}, or it is private: see `hf auth login`"
        ) from error
    except EntryNotFoundError as error:
        if not isinstance(error, LocalEntryNotFoundError):
            raise FileNotFoundError(f"the hub's {repository} has no {CONFIG}: expected a repository of timm") from error
        raise _unreached(missing, repository, error) from error
    except (ConnectionError, RuntimeError, OSError) as error:
        raise _unreached(missing, repository, error) from error
    raise FileNotFoundError(f"the hub's {repository} has neither {' nor '.join(WEIGHTS)}: give another name")


def _unreached(missing: str, repository: str, error: Exception) -> ConnectionError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConnectionError(
        f"{missing}, the hub was not reached for {repository} ({reason}), and the cache does not hold it: give a file, "
        "or download it while online"
    )


def _config(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}): download it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no config: expected a JSON object")
    return config


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; of a training's checkpoint the averaged ones, where it has such.

    Raises:
        ValueError: the file is damaged, holds more than weights, or none.
    """
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}): download it again") from error
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} is damaged, or holds more than weights, which could run code: keep its state dict alone, by "
            "torch.save(checkpoint['state_dict'], file) where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{file} is damaged ({str(error).splitlines()[0]}): download it again") from error
    for name in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(entry, Tensor) for entry in loaded.values()):
        raise ValueError(f"{file} holds no state dict: expected tensors by name, perhaps under {', '.join(NESTED)}")
    # A network trained in several processes keeps its weights under "module."
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}
