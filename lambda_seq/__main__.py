"""The command `lambda-seq`, also as `python -m lambda_seq`, which answers what it can before it imports training."""

from __future__ import annotations

import sys
from textwrap import dedent

from lambda_seq import __version__

USAGE = """\
    usage: lambda-seq fit|validate|test|predict|baseline --config NAME [--data.path PATH] [options]
           lambda-seq data PATH | fit --help | --version

    fit       train; then test the best checkpoint and keep its network in outputs/NAME
    validate  figures of the validation split, of the best checkpoint
    test      figures of the test split, of the best checkpoint
    predict   answers for the test split, or for --data.predict_path, into a file
    data      what would be read: splits, classes, lengths, and what is to be looked at
    baseline  figures of a simple method on the same data, to compare a network with

    NAME is a configuration below, or a YAML file of yours; PATH is a file, a folder or a data set of the hub.
    All options: lambda-seq fit --help. Those of a class: lambda-seq fit --data.help TextData
    """


def main() -> None:
    """Run the command line; a missing extra, and a configuration that is nowhere, end in one line."""
    words = sys.argv[1:]
    if words == ["--version"]:
        print(f"lambda-seq {__version__}")
        return
    try:
        from lambda_seq.tasks.configurations import configurations, located

        if words in ([], ["-h"], ["--help"]):
            print(dedent(USAGE))
            for name, purpose in configurations().items():
                print(f"  {name:22}{purpose}")
            sys.exit(0 if words else 2)
        located(words)
        from lambda_seq.tasks.cli import main as run
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and "lambda-seq[train]" not in str(error):
            raise
        sys.exit(f"error: {error}")
    run()


if __name__ == "__main__":
    main()
