"""Model: what every network of the registry carries and can do, beside its `forward`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lambda_seq.models.heads import Classes, Objective
from lambda_seq.models.hub.loading import locate, read_model
from lambda_seq.models.hub.saving import Given, push
from lambda_seq.models.registry import register_class

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Model(nn.Module):
    """What every network of the registry carries, beside its weights, for a checkpoint, a task or a saved folder.

    Attributes:
        num_classes: length of the last dimension of the output.
        input_kind: what `forward` takes: "image" (B, C, H, W), "tokens" (B, N), "waveform" (B, N) or (B, N, C),
            or "features" (B, N, C).
        takes: what networks of the class take, and how one of that kind is chosen, in words.
        answering: names of the modules that answer from features, with the options that concern them alone: what a
            network that starts from another's weights makes anew.
        objective: what the output is trained for, and what it answers; classes unless a network says otherwise.
        vocab_size: number of token ids, of a network that takes tokens; None for others.
        name: the name it was created by; None when constructed directly.
        options: the options it was created with, those that the name stands for included, so that
            `create_model(name, **options)` builds it again; when constructed directly, the arguments of its class.
        labels: names of the classes, in order; None where not known. They, the tokenizer and the preprocessing are
            there after `from_pretrained`, and what `save_pretrained` writes unless others are given.
        tokenizer: a `tokenizers.Tokenizer` that makes tokens of text; None for bytes, or where the input is no text.
        preprocessing: facts of the data that inference needs: mean, std, sampling rate, …

    Subclasses need nothing of their own to be saved: the arguments that they are constructed with are kept, and have to
    be numbers, strings, lists and dicts for `save_pretrained`.
    """

    num_classes: int
    input_kind: str
    vocab_size: int | None = None
    name: str | None = None
    options: dict[str, Any] | None = None
    labels: list[str] | None = None
    tokenizer: Tokenizer | None = None
    preprocessing: dict[str, Any] | None = None
    takes: ClassVar[Mapping[str, str]] = {}
    answering: ClassVar[tuple[str, ...]] = ("head", "head_options", "pool", "num_classes")
    objective: Objective = Classes()

    def body(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Of weights, its own unless others are given, those that make features: all but the head's."""
        given = self.state_dict() if weights is None else weights
        return {name: tensor for name, tensor in given.items() if name.partition(".")[0] not in self.answering}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        register_class(cls)

    def __new__(cls, *given: Any, **options: Any) -> Self:
        """The arguments are kept here, whatever `__init__` of a subclass does with them."""
        model: Self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(model, *given, **options).arguments
        except TypeError:  # __init__ says it better; copies and pickles come without
            return model
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        kept: dict[str, Any] = {}
        for parameter in parameters:
            if parameter.name not in bound:
                continue
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                kept |= bound[parameter.name]
            elif parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
                return model  # no options by name: save_pretrained says so
            else:
                kept[parameter.name] = bound[parameter.name]
        model.__dict__["options"] = kept
        return model

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
            ValueError: the model's class takes arguments by position only, which cannot be written by name, or an
                argument does not fit the model.
            TypeError: an argument, or an option that the model was constructed with, of a type that cannot be written.
        """
        given = Given(self, labels, tokenizer, preprocessing)
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
        return push(
            Given(self, labels, tokenizer, preprocessing),
            repo_id,
            card=card,
            private=private,
            revision=revision,
            token=token,
            commit_message=commit_message,
        )

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
        """The model of a folder that `save_pretrained` wrote, a trained one by name, or that of a hub's repository.

        It is in evaluation mode. The name in its config decides which class of network it is; labels, tokenizer and
        preprocessing are attributes of the result, and its weights have the dtype they were saved in. Torch's random
        numbers stay as they are.

        Args:
            name_or_path: a folder; else one of `list_pretrained()`; else "owner/name" of the hub.
            revision: branch, tag or commit of the repository; None for its main branch.
            device: where the model shall be; None for the CPU.
            cache_dir: where downloads are kept; None for the hub's own cache.
            token: of the hub, for private repositories.

        Raises:
            FileNotFoundError: no such folder or repository, or a file is missing in it.
            ConnectionError: the hub was not reached and the cache does not hold the repository.
            ValueError: a file is damaged or, of a trained network, not the one of the index; a network that is not
                known or of another class; weights that do not fit it.
        """
        model = read_model(locate(name_or_path, revision, cache_dir, token), cls)
        if not isinstance(model, cls):
            kind = type(model).__name__
            held = f"{model.name!r}, a {kind}" if model.name else f"a {kind}"
            raise ValueError(
                f"name_or_path={str(name_or_path)!r} holds {held}, no {cls.__name__}: use {kind}"
                ".from_pretrained, or lambda_seq.from_pretrained for any"
            )
        return model if device is None else model.to(device)


def from_pretrained(name_or_path: str | os.PathLike[str], **options: Any) -> Model:
    """The model of a folder, a trained one by name, or one of the hub, of any class; see `Model.from_pretrained`."""
    return Model.from_pretrained(name_or_path, **options)
