"""Which checkpoint `--ckpt_path` means."""

from __future__ import annotations

import sys
from pathlib import Path

from lambda_seq.tasks.checkpointing.runs import newest_run
from lambda_seq.tasks.checkpointing.storage import BEST, LAST, damage, newest, previous


def chosen_checkpoint(given: str | None, best: Path, last: Path, *, fit: bool) -> str | None:
    """The file of a checkpoint named by path, as "best" or as "last".

    By default fit begins anew, and all others take the best, or the last of a training without validation. Both are
    of the newest run that has begun in the folder, and of no earlier one.

    Args:
        given: path, "best", "last" or None.
        best: folder of the best checkpoint.
        last: folder of the last one.
        fit: whether it is for a training, which "last" may begin as well.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged.
    """
    if given is None and fit:
        return None
    if given not in (None, "best", "last"):
        return _good(Path(str(given)).expanduser(), given)
    run, file = newest_run(best), best / BEST
    if given == "last" or (given is None and not run.owns(file)):
        skipped, (run, file) = given is None and file.exists(), (newest_run(last), last / LAST)
        if skipped and run.owns(file):
            print(f"{best / BEST} is of an earlier run; taking {file}", file=sys.stderr)
    if run.owns(file) or (file.name == LAST and run.owns(previous(file))):
        return str(newest(file, run.owns)) if file.name == LAST else _good(file, given)
    earlier = [str(old) for old in (file, previous(file)) if old.exists()]
    absent = f"there is no {file} of the run that was last begun there" if earlier else f"there is no file {file}"
    remedy = f"; to use {earlier[0]}, which is of an earlier run, give its path with --ckpt_path" if earlier else ""
    if not fit or given == "best":
        raise FileNotFoundError(
            f"ckpt_path={given!r}: {absent}; train first with `lambda-seq fit`, or name a checkpoint with "
            f"--ckpt_path{remedy}"
        )
    # One command both starts and continues a run
    how = "training begins anew" if run.begun is None else f"it begins as before, from {run.begun}"
    print(f"ckpt_path='last': {absent} yet; {how}{remedy}", file=sys.stderr)
    return None if run.begun is None else _good(Path(run.begun), given)


def _good(file: Path, given: str | None) -> str:
    """A checkpoint that can be used.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged.
    """
    if file.name == LAST and (file.exists() or previous(file).is_file()):
        return str(newest(file))
    if not file.exists():
        raise FileNotFoundError(
            f"ckpt_path={given!r}: there is no file {file}; train first with `lambda-seq fit`, or name a checkpoint "
            "with --ckpt_path"
        )
    if wrong := damage(file):
        raise ValueError(f"ckpt_path={given!r}: {file} cannot be used, {wrong}; name another, such as {LAST}")
    return str(file)
