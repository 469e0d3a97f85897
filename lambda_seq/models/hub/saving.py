"""What goes into a saved model's folder, checked before anything is written, and its way to the hub.

`huggingface_hub.ModelHubMixin` is not what this is built on: it writes files in place, of which a kill leaves halves,
loads a model by a class that must be known instead of by the name in its config, and takes memory for what a config
says before it has looked at the weights. The hub itself is reached by the same library's `HfApi`.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_seq.models.hub.card import model_card
from lambda_seq.models.hub.folder import TOKENIZER, first_line, write_folder
from lambda_seq.models.registry import check_options, class_name

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from lambda_seq.models.model import Model


class Given:
    """What goes with the weights: the arguments of a save, checked, or what the model has."""

    def __init__(
        self,
        model: Model,
        labels: list[str] | None,
        tokenizer: Tokenizer | None,
        preprocessing: dict[str, Any] | None,
    ) -> None:
        from lambda_seq import __version__

        self.model = model
        if model.options is None:
            raise ValueError(
                f"{type(model).__name__} was constructed with arguments that have no names, *args: take them by name, "
                "or set model.options, from which its class builds it again"
            )
        name = model.name or class_name(type(model))
        options = _primitive("options", model.options) or {}
        check_options(name, options)
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
            "model_type": "lambda_seq",  # by which transformers finds the classes of `lambda_seq.interop.huggingface`
            "model": name,
            "options": options,
            "labels": labels,
            "preprocessing": _primitive("preprocessing", preprocessing),
            "save": secrets.token_hex(8),  # the weights hold it too, so that files of two saves are not taken for one
        }

    def write(self, folder: Path, card: str | None, where: str) -> None:
        """The folder of the model; `where` is what its card says it is loaded from."""
        readme = model_card(self.model, self.config, tokenized=self.tokenizer is not None, text=card, where=where)
        write_folder(folder, self.model, self.config, self.tokenizer, readme)


def push(
    given: Given,
    repo_id: str,
    *,
    card: str | None,
    private: bool | None,
    revision: str | None,
    token: str | None,
    commit_message: str,
) -> str:
    """Send the folder of a model to a repository of the hub as one commit, whose address it gives; see `Model`."""
    from huggingface_hub import HfApi

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


def _primitive(name: str, value: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same, if JSON holds it; numbers of NumPy as Python's."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {type(value).__name__}: expected a dict")
    for key, entry in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{name} has the key {key!r}: expected strings")
        try:
            json.dumps(entry, allow_nan=False, default=_number)
        except (TypeError, ValueError) as error:
            advice = (
                "; a model that was constructed with anything else is kept by torch.save(model.state_dict(), file)"
                if name == "options"
                else ""
            )
            raise TypeError(
                f"{name}[{key!r}] is {entry!r}: expected numbers, strings, lists and dicts, which JSON holds{advice}"
            ) from error
    written: dict[str, Any] = json.loads(json.dumps(value, default=_number))
    return written


def _number(value: object) -> int | float:
    """A number that JSON does not know, as one that it does."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no number")
