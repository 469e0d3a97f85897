"""`lambda-seq export FOLDER --out model.onnx`: a saved model as an ONNX file, with all that a caller has to know."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lambda_seq.interop.onnx import INSTALL, export_onnx
from lambda_seq.models.model import from_pretrained


def main(words: Sequence[str]) -> None:
    """Export; an error is one message."""
    options = parser().parse_args(list(words))
    try:
        run(options)
    except (ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError) as error:
        if os.environ.get("LAMBDA_SEQ_TRACEBACK"):
            raise
        sys.exit(f"error: {error}\n(LAMBDA_SEQ_TRACEBACK=1 shows where)")


def run(options: argparse.Namespace) -> None:
    """Write the files, and say what they are.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `from_pretrained` and `export_onnx`.
        ModuleNotFoundError: the extra `onnx` is not installed.
        RuntimeError: ONNX Runtime gives something else than torch.
    """
    model = from_pretrained(options.model).float()
    size = options.image_size
    done = export_onnx(
        model,
        options.out,
        step=False if options.whole else None,
        mask=False if options.no_mask else None,
        image_size=size[0] if size and len(size) == 1 else size,
        check=False if options.no_check else None,
    )
    print(f"{done.file}: {done.file.stat().st_size / 1e6:.2f} MB")
    print(f"{done.description}: its inputs and outputs, and how inputs are prepared")
    if done.tokenizer is not None:
        print(f"{done.tokenizer}: makes token ids of text")
    if done.difference is not None:
        print(
            f"in ONNX Runtime as in torch: greatest difference {done.difference:.1e} of the greatest ({done.checked})"
        )
    elif options.no_check:
        print("not compared with torch: --no_check")
    else:
        print(f"not compared with torch, as ONNX Runtime is not installed: {INSTALL}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser("lambda-seq export", description=__doc__, allow_abbrev=False)
    add = command.add_argument
    add("export", choices=["export"], help=argparse.SUPPRESS)
    add("model", metavar="FOLDER", help="what `fit` left as outputs/NAME/model, or a name of the hub")
    add("--out", default="model.onnx", metavar="FILE", help="the ONNX file; others lie beside it (%(default)s)")
    add("--whole", action="store_true", help="of a language model: whole texts, in place of one step of a stream")
    add("--no_mask", action="store_true", help="without the input that says which positions are real")
    add("--image_size", type=int, nargs="+", metavar="N", help="of pictures: height and width; those of the training")
    add("--no_check", action="store_true", help="do not compare with torch in ONNX Runtime")
    return command
