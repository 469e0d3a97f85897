"""Saving, loading and sharing of models: `save_pretrained`, `from_pretrained` and `push_to_hub`."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from lambda_seq.models.card import model_card
from lambda_seq.models.folder import (
    CONFIG,
    FILES,
    TOKENIZER,
    WEIGHTS,
    first_line,
    load_weights,
    read_config,
    write_folder,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from lambda_seq.models.registry import Model


class Pretrained(nn.Module):
    """Saving and loading, for all networks of the registry; the attributes are explained by `registry.Model`."""

    num_classes: int
    input_kind: str
    vocab_size: int | None = None
    name: str | None = None
    options: dict[str, Any] | None = None
    labels: list[str] | None = None
    tokenizer: Tokenizer | None = None
    preprocessing: dict[str, Any] | None = None

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        labels: list[str] | None = None,
        tokenizer: Tokenizer | None = None,
        preprocessing: dict[str, Any] | None = None,
        card: str | None = None,
    ) -> Path:
        """Write weights and all that is needed to use them to a folder, for `from_pretrained`.

        Every file is whole at any time: a kill leaves the old ones or the new ones. Other files in the folder stay.

        Args:
            folder: made if it does not exist; a model in it is replaced.
            labels: names of the classes, in order; None for those the model has.
            tokenizer: None for the one the model has; without one the model takes bytes, or no text.
            preprocessing: of numbers, strings, lists and dicts; None for what the model has.
            card: Markdown for the model card: what the model is for, data, metrics.

        Returns:
            The folder.

        Raises:
            ValueError: the model does not know its options, as `create_model` did not make it, or an argument does not
                fit the model.
            TypeError: an argument of a type that cannot be written.
        """
        given = _Given(self, labels, tokenizer, preprocessing)
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"folder={str(folder)!r} is a file: expected a folder, or a name that is free")
        given.write(folder, card, str(folder))
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        labels: list[str] | None = None,
        tokenizer: Tokenizer | None = None,
        preprocessing: dict[str, Any] | None = None,
        card: str | None = None,
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        commit_message: str = "Save the model",
    ) -> str:
        """Send what `save_pretrained` writes to a repository of the Hugging Face hub, as one commit.

        Args:
            repo_id: "owner/name"; made if it does not exist.
            labels, tokenizer, preprocessing, card: as for `save_pretrained`.
            private: whether a repository that is made is private; None for the owner's default.
            revision: branch, made if it does not exist; None for the main one.
            token: of the hub; None for the one that `hf auth login` has stored.
            commit_message: of the commit.

        Returns:
            Address of the commit.

        Raises:
            ValueError, TypeError: as `save_pretrained`.
            ConnectionError: the hub was not reached, or refused.
        """
        from huggingface_hub import HfApi

        given = _Given(self, labels, tokenizer, preprocessing)
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            given.write(folder, card, repo_id)
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                if revision is not None:
                    api.create_branch(repo_id, branch=revision, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    revision=revision,
                    commit_message=commit_message,
                    delete_patterns=None if given.tokenizer else [TOKENIZER],  # of an earlier model
                )
            except (OSError, RuntimeError) as error:
                raise ConnectionError(
                    f"repo_id={repo_id!r}: the hub was not reached, or refused ({first_line(error)}); go online and "
                    "log in with `hf auth login`, or keep the model with save_pretrained(folder)"
                ) from error
        return str(commit.commit_url)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
    ) -> Self:
        """The model of a folder that `save_pretrained` wrote, or of a repository of the hub, in evaluation mode.

        The name in its config decides which class of network it is; labels, tokenizer and preprocessing are attributes
        of the result, and its weights have the dtype they were saved in. Torch's random numbers stay as they are.

        Args:
            name_or_path: a folder, or "owner/name" of the hub.
            revision: branch, tag or commit of the repository; None for its main branch.
            device: where the model shall be; None for the CPU.
            cache_dir: where downloads are kept; None for the hub's own cache.
            token: of the hub, for private repositories.

        Raises:
            FileNotFoundError: no such folder or repository, or a file is missing in it.
            ConnectionError: the hub was not reached and the cache does not hold the repository.
            ValueError: a file is damaged, its network is not known or of another class, or weights do not fit it.
        """
        model = _read(_locate(name_or_path, revision, cache_dir, token))
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise ValueError(
                f"name_or_path={str(name_or_path)!r} holds {model.name!r}, a {kind}, no {cls.__name__}: use {kind}"
                ".from_pretrained, or lambda_seq.from_pretrained for any"
            )
        return model if device is None else model.to(device)


def from_pretrained(name_or_path: str | os.PathLike[str], **options: Any) -> Model:
    """The model of a folder or of a repository of the hub, whatever its class; see `Model.from_pretrained`."""
    from lambda_seq.models.registry import Model

    return Model.from_pretrained(name_or_path, **options)


class _Given:
    """What goes with the weights: the arguments of a save, checked, or what the model has."""

    def __init__(
        self,
        model: Pretrained,
        labels: list[str] | None,
        tokenizer: Tokenizer | None,
        preprocessing: dict[str, Any] | None,
    ) -> None:
        from lambda_seq import __version__

        self.model = model
        if model.name is None or model.options is None:
            raise ValueError(
                f"{type(model).__name__} was constructed directly and so does not know its options: construct it with "
                "create_model(name, ...), or set model.name and model.options"
            )
        if any(parameter.is_meta for parameter in model.parameters()):
            raise ValueError("the model is on the meta device, without weights: construct it on another one")
        labels = model.labels if labels is None else labels
        preprocessing = model.preprocessing if preprocessing is None else preprocessing
        if labels is not None:
            labels = list(labels)
            if not all(isinstance(label, str) for label in labels):
                raise TypeError(f"labels={labels[:5]}: expected strings")
            if len(labels) != model.num_classes:
                raise ValueError(f"labels has {len(labels)} entries: expected num_classes={model.num_classes}")
        self.tokenizer = model.tokenizer if tokenizer is None else tokenizer
        if self.tokenizer is not None:
            if not hasattr(self.tokenizer, "to_str") or not hasattr(self.tokenizer, "get_vocab_size"):
                raise TypeError(
                    f"tokenizer is {type(self.tokenizer).__name__}: expected a tokenizers.Tokenizer, or None"
                )
            most = model.vocab_size
            if most is None or self.tokenizer.get_vocab_size() > most:
                raise ValueError(
                    f"tokenizer has {self.tokenizer.get_vocab_size()} tokens but the model takes "
                    + ("none" if most is None else f"vocab_size={most}")
                    + ": give the one it was trained with"
                )
        self.config: dict[str, Any] = {
            "library": "lambda_seq",
            "library_version": __version__,
            "model": model.name,
            "options": _primitive("options", model.options),
            "labels": labels,
            "preprocessing": _primitive("preprocessing", preprocessing),
            "save": secrets.token_hex(8),  # the weights hold it too, so that files of two saves are not taken for one
        }

    def write(self, folder: Path, card: str | None, where: str) -> None:
        """The folder of the model; `where` is what its card says it is loaded from."""
        readme = model_card(self.model, self.config, tokenized=self.tokenizer is not None, text=card, where=where)
        write_folder(folder, self.model, self.config, self.tokenizer, readme)


def _primitive(name: str, value: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same, if JSON holds it."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {type(value).__name__}: expected a dict")
    for key, entry in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{name} has the key {key!r}: expected strings")
        try:
            json.dumps(entry, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name}[{key!r}] is {entry!r}: expected numbers, strings, lists and dicts, which JSON holds"
            ) from error
    return value


def _locate(
    name_or_path: str | os.PathLike[str],
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | None,
) -> Path:
    """The folder itself, or that of the downloaded repository."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    name = os.fspath(name_or_path)
    missing = f"name_or_path={name!r} is no folder here"
    owner, slash, rest = name.partition("/")
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


def _read(folder: Path) -> Model:
    from lambda_seq.models.registry import create_model

    config = read_config(folder / CONFIG)
    try:
        with torch.random.fork_rng(devices=[]):
            model = create_model(config["model"], **config["options"])
    except (TypeError, ValueError) as error:
        from lambda_seq import __version__

        raise ValueError(
            f"{folder / CONFIG}: {error} (saved by lambda_seq {config.get('library_version')}, this is {__version__})"
        ) from error
    load_weights(model, folder / WEIGHTS, config.get("save"))
    model.labels, model.preprocessing = config.get("labels"), config.get("preprocessing")
    if (folder / TOKENIZER).is_file():
        from tokenizers import Tokenizer

        try:
            model.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(
                f"{folder / TOKENIZER} is no tokenizer ({first_line(error)}): save the model again"
            ) from error
    return model.eval()
