"""The command `lambda-seq`, also as `python -m lambda_seq`, which answers what it can before it imports training."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from lambda_seq import __version__

COMMANDS = {
    "fit": "train; then test the best checkpoint and keep its network",
    "validate": "figures of the validation split, of the best checkpoint",
    "test": "figures of the test split, of the best checkpoint",
    "predict": "answers for the test split, or by --model FOLDER --input FILES",
    "export": "a network as an ONNX file for other programs: export FOLDER",
    "data": "what would be read of a file or folder, and what stands out",
    "baseline": "figures of a simple method on the same data, to compare with",
    "configs": "configurations that come with the library; configs NAME shows one",
}
SHOWN = ("text_classification", "audio_classification", "image_classification", "language_modelling")
HELP = ("-h", "--help")


def usage() -> str:
    """One screen of 24 lines and 80 columns."""
    lines = ["usage: lambda-seq COMMAND --config NAME [--data.path PATH] [options]", ""]
    lines += [f"  {name:10}{purpose}" for name, purpose in COMMANDS.items()]
    lines += ["", "NAME is a YAML file of yours, or a configuration of the library, such as"]
    lines += [f"  {name}" for name in SHOWN]
    return "\n".join(
        [
            *lines,
            "PATH is a file, a folder or a data set of the Hugging Face hub.",
            "",
            "  lambda-seq fit --config text_classification --data.path reviews.csv",
            "  lambda-seq fit --config text_classification --help  # options of data, model",
            "  lambda-seq fit --help                               # all options",
            "  lambda-seq fit --data.help TextData                 # all of a class",
            "  lambda-seq --version",
        ]
    )


def main() -> None:
    """Run the command line; a missing extra, and a name that is nowhere, end in one line."""
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]):
        print(f"lambda-seq {__version__}")
        return
    if not words or words[0] in HELP:
        print(usage())
        sys.exit(0 if words else 2)
    try:
        check_command(words[0])
        if words[0] == "export":  # which needs no training
            with without_collecting():
                from lambda_seq.interop import onnx_command

            onnx_command.main(words)
            return
        from lambda_seq.tasks.configurations import located

        if words[0] == "configs":
            show_configurations(words[1:])
            return
        if words[0] == "predict":
            with without_collecting():
                from lambda_seq.tasks import predicting

            if predicting.asks(words):
                predicting.main(words)
                return
        located(words)
        with without_collecting():
            from lambda_seq.tasks.cli import main as run
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and "lambda-seq[train]" not in str(error):
            raise
        sys.exit(f"error: {error}")
    see_own_folder()
    run()


@contextmanager
def without_collecting() -> Iterator[None]:
    """For imports: what they make is no garbage, now or later, and to look for some takes a tenth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)  # modules whose objects are counted at the end see theirs go


def check_command(word: str) -> None:
    """Refuse what is no command; options may stand before one.

    Raises:
        ValueError: names the nearest.
    """
    if word.startswith("-") or word in COMMANDS:
        return
    near = get_close_matches(word.lower(), COMMANDS, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"{word}: there is no such command; {meant}Commands are {', '.join(COMMANDS)}")


def show_configurations(names: Sequence[str]) -> None:
    """List the library's configurations with what each is for, or show files.

    Raises:
        ValueError: there is no configuration of this name.
    """
    from lambda_seq.tasks.configurations import configuration, configurations

    if set(names) & set(HELP):
        print("usage: lambda-seq configs [NAME ...]\n\nList the library's configurations, or show files of some.")
        return
    for name in names:
        print(configuration(name).read_text(encoding="utf-8"), end="")
    if not names:
        for name, purpose in configurations().items():
            print(f"  {name:22}{purpose}")
        print("\nlambda-seq configs NAME shows one; lambda-seq configs NAME > mine.yaml begins one of your own")


def see_own_folder() -> None:
    """Let classes of the user's be imported from the working folder, as by `python -m`.

    Only now, when everything else is imported: a file of theirs may be called as a module that we need.
    """
    folder = os.getcwd()
    if not sys.flags.safe_path and not {"", folder} & set(sys.path[:1]):
        sys.path.insert(0, folder)


if __name__ == "__main__":
    main()
