"""The model of a saved folder, or of a repository of the hub."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lambda_seq.layers import adopt_batch_norms
from lambda_seq.models.hub.folder import (
    CONFIG,
    FILES,
    TOKENIZER,
    WEIGHTS,
    Header,
    first_line,
    load_weights,
    read_config,
    read_header,
)
from lambda_seq.models.hub.named import pretrained
from lambda_seq.models.hub.older import current_options
from lambda_seq.models.registry import class_name, create_model, is_own

if TYPE_CHECKING:
    from lambda_seq.models.model import Model


def read_model(folder: Path, kind: type[Model]) -> Model:
    """The model of a folder; `kind` is the class that is asked for."""
    config = read_config(folder / CONFIG)
    header = read_header(folder / WEIGHTS, config.get("save"))
    name = config["model"]
    if name.rpartition(".")[2] == kind.__qualname__:  # a class may be imported under another name than it was saved by
        name = class_name(kind)
    try:
        config["options"] = current_options(name, config["options"], header.shapes)
        header.check_count(config["options"])
        _check_without_memory(name, config["options"], header)
        with torch.random.fork_rng(devices=[]):
            model = create_model(name, **config["options"])
    except Exception as error:  # options may be anything
        from lambda_seq import __version__

        raise ValueError(
            f"{folder / CONFIG}: {error} (saved by lambda_seq {config.get('library_version')}, this is {__version__})"
        ) from error
    load_weights(model, header)
    model.labels, model.preprocessing = config.get("labels"), config.get("preprocessing")
    if (folder / TOKENIZER).is_file():
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'{folder} has a tokenizer, which the package tokenizers reads: pip install "lambda-seq[train]"',
                name=error.name,
            ) from error
        try:
            model.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(
                f"{folder / TOKENIZER} is no tokenizer ({first_line(error)}): save the model again"
            ) from error
    return model.eval()


def locate(
    name_or_path: str | os.PathLike[str],
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | None,
) -> Path:
    """The folder itself, that of a trained network by its name, or that of the downloaded repository."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    name = os.fspath(name_or_path)
    missing = f"name_or_path={name!r} is no folder here"
    owner, slash, rest = name.partition("/")
    if not slash and (known := pretrained()):
        if name in known:
            return known[name].verify()
        missing += f", none of the trained networks ({', '.join(known)})"
    if not slash or "/" in rest or not rest or owner in ("", ".", "..", "~") or Path(name).exists():
        raise FileNotFoundError(f"{missing}, and no name of the hub, owner/name: give the folder of save_pretrained")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                token=token,
                allow_patterns=list(FILES),
            )
        )
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"revision={revision!r}: the hub's {name} has no such branch, tag or commit") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{missing}, and the hub has no such repository, or it is private: see `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, ConnectionError, RuntimeError, OSError) as error:
        raise ConnectionError(
            f"{missing}, the hub was not reached ({first_line(error)}), and the cache does not hold the repository: "
            "give a folder, or download it while online"
        ) from error


def _check_without_memory(name: str, options: dict[str, Any], header: Header) -> None:
    """Raise an error unless the network fits the weights: what a config says may be absurd, and take any memory."""
    header.check_count(options)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the construction with memory says the same
            with torch.device("meta"), header.limit():
                sketch = create_model(name, **options)
    except RuntimeError:
        if is_own(name):
            raise
        return  # others need not construct on the meta device
    adopt_batch_norms(sketch, header.shapes, quiet=True)
    header.check_fit(sketch)
