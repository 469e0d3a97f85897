"""Private names of other libraries: each that is used is listed with its reason, said at its place, and still there.

A name that begins with one underscore may go with any release of the library that owns it. Where a public name does the
same, that one is used; `PRIVATE` has the others.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import pkgutil
import re
import textwrap
import tokenize
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT

import lambda_seq

ROOMS = ("lambda_seq", "tasks", "scripts")
ABOVE = 4  # lines above a name, of which one says that it is private


@dataclass(frozen=True)
class Private:
    """A private name of another library.

    Attributes:
        owner: the module, or class, that has it: "module" or "module:Class".
        files: where it is used.
        reason: why no public name will do.
    """

    owner: str
    files: tuple[str, ...]
    reason: str


NO_WAY_TO_ASK = "torch has no public way to ask"
LOOP = "lightning.pytorch.loops.training_epoch_loop:_TrainingEpochLoop"
CLI, CLI_FILE = "lightning.pytorch.cli:LightningCLI", ("tasks/cli.py",)
AVERAGING, AVERAGING_FILE = "lightning.pytorch.callbacks:WeightAveraging", ("tasks/callbacks/averaging.py",)
CHECKPOINTS, METRICS = ("tasks/callbacks/checkpoints.py",), ("tasks/metrics.py",)
PRIVATE = {
    "_C": Private("torch", ("lambda_seq/functional/operators.py",), "it has those that follow"),
    "_are_functorch_transforms_active": Private("torch._C", ("lambda_seq/functional/operators.py",), NO_WAY_TO_ASK),
    "_is_fwd_grad_enabled": Private("torch._C", ("lambda_seq/functional/operators.py",), NO_WAY_TO_ASK),
    "_len_torch_dispatch_stack": Private("torch._C", ("lambda_seq/functional/operators.py",), NO_WAY_TO_ASK),
    "_AutoDispatchBelowAutograd": Private(
        "torch._C", ("lambda_seq/functional/operators.py",), "no_grad still finds out at each step what to record"
    ),
    "_set_fwd_grad_enabled": Private(
        "torch.autograd.forward_ad",
        ("lambda_seq/functional/transforms.py",),
        "nothing public turns forward mode on again within a jvp",
    ),
    "_pytree": Private(
        "torch.utils", ("lambda_seq/functional/states.py",), "torch.export.register_dataclass makes children of numbers"
    ),
    "_actions": Private(
        "argparse:ArgumentParser", ("tasks/command_line/short_help.py",), "no public way to ask what options are for"
    ),
    "_subclasses": Private(
        "torch", ("tasks/memory/estimate.py",), "the documented FakeTensorMode is in no public module"
    ),
    "_python_dispatch": Private(
        "torch.utils", ("tasks/memory/estimate.py",), "the documented TorchDispatchMode is in no public module"
    ),
    "_version": Private(
        "torch:Tensor", ("lambda_seq/layers/positions/kept.py",), "no public count of changes in place, as autograd has"
    ),
    "_load_from_state_dict": Private(
        "torch.nn:Module", ("lambda_seq/layers/synced.py",), "hooks would have to be kept on each module"
    ),
    "_apply": Private(
        "torch.nn:Module",
        ("lambda_seq/models/sequence/language_model.py", *METRICS),
        "no hook follows a module to another device or dtype",
    ),
    "_last_lr": Private(
        "torch.optim.lr_scheduler:LRScheduler", ("tasks/callbacks/resuming.py",), "get_last_lr can only be read"
    ),
    "_defaults": Private("torchmetrics:Metric", METRICS, "states begin anew with them, in another dtype"),
    "_forward_cache": Private("torchmetrics:Metric", METRICS, "Lightning logs it with each step"),
    "_update_count": Private("torchmetrics:Metric", ("tasks/figures.py",), "update_count can only be read"),
    "_indices": Private(
        "datasets:Dataset", ("tasks/data/reading/columns.py",), "no public way to ask which rows were selected"
    ),
    "_fingerprint": Private(
        "datasets:Dataset",
        ("tasks/data/reading/corpus.py", "tasks/data/images/numbers.py", "tasks/data/series/tables.py"),
        "a hash of the rows would read all of them",
    ),
    "_average_model": Private(AVERAGING, AVERAGING_FILE, "no public way to begin an average with other weights"),
    "_latest_update_step": Private(AVERAGING, AVERAGING_FILE, "no public way to begin an average at another step"),
    "_get": Private(CLI, CLI_FILE, "a value of the subcommand's configuration"),
    "_parse_ckpt_path": Private(CLI, CLI_FILE, "it would replace the configured model"),
    "_parser": Private(CLI, CLI_FILE, "instantiate_trainer leaves no callback out"),
    "_instantiate_trainer": Private(CLI, CLI_FILE, "instantiate_trainer leaves no callback out"),
    "_run_subcommand": Private(CLI, CLI_FILE, "before_fit and after_fit do not surround what goes wrong in between"),
    "_should_accumulate": Private(LOOP, CHECKPOINTS, "the end of a step depends on the strategy and the loader"),
    "_should_check_val_fx": Private(LOOP, CHECKPOINTS, "intervals in batches, epochs and minutes, early stops"),
    "_batches_that_stepped": Private(LOOP, CHECKPOINTS, "the number by which Lightning logs"),
    "_data_fetcher": Private("lightning.pytorch.loops.fit_loop:_FitLoop", CHECKPOINTS, "_should_check_val_fx wants it"),
    "_logger_connector": Private("lightning.pytorch:Trainer", CHECKPOINTS, "logged_metrics are of the step before"),
    "_accelerator_connector": Private(
        "lightning.pytorch:Trainer", ("tasks/strategies/stopping.py",), "no strategy of one device has the environment"
    ),
    "_set_hparams": Private(
        "lightning.pytorch:LightningModule",
        ("tasks/training.py",),
        "what save_hyperparameters keeps goes through it",
    ),
    "_hparams_initial": Private(
        "lightning.pytorch.core.mixins:HyperparametersMixin",
        ("tasks/training.py",),
        "loggers write it, and hparams_initial is a copy",
    ),
    "_data_parallel_size": Private(
        "lightning.pytorch.strategies:ModelParallelStrategy",
        ("tasks/strategies/distributed.py",),
        "the constructor takes it before the number of processes is known",
    ),
}
# Public although they begin with an underscore: those of named tuples, and the documented end of a process
DOCUMENTED = {"_replace", "_asdict", "_fields", "_exit"}
# Of this library's own objects, in another file
OWN_ELSEWHERE = {("scripts/draw_receptive.py", "_inputs")}


def sources():
    """Path and text of each file."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "lambda_seq/tasks/" not in path.as_posix():  # a link to tasks/
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@cache
def defined(text):
    """Private names that a file defines: functions, classes, constants, and attributes of its own objects."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and own(node.value):
            found.add(node.attr)
    return {name for name in found if private(name)}


def used(text):
    """(name, line, whether of an own object) of each private attribute, import and name in getattr."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and private(node.attr):
            super_ = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
            yield node.attr, node.end_lineno, own(node.value) or super_
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if not (getattr(node, "module", None) or "").startswith("lambda_seq"):
                yield from ((part, node.lineno, False) for name in names for part in name.split(".") if private(part))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            name = node.args[1] if len(node.args) > 1 else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and private(name.value):
                yield name.value, node.lineno, own(node.args[0])


@cache
def found():
    """Private names of others, {(file, name): first line}."""
    files = dict(sources())
    anywhere = set().union(*map(defined, files.values()))
    uses = {}
    for path, text in files.items():
        here = {name for name in defined(text) if name not in PRIVATE or path not in PRIVATE[name].files}
        for name, line, ours in used(text):
            known = name in here or (ours and name in anywhere - PRIVATE.keys()) or (path, name) in OWN_ELSEWHERE
            if name not in DOCUMENTED and not known:
                uses[path, name] = min(line, uses.get((path, name), line))
    return uses


@cache
def source(kind):
    """Text of a class, none of those that are compiled."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def inherited():
    """(file, name) of what our classes take, or take over, from the private parts of those they inherit from."""
    for info in pkgutil.walk_packages(lambda_seq.__path__, "lambda_seq."):
        if info.name.startswith(
            (
                *("lambda_seq.interop", "lambda_seq.functional.position.kernels.", "lambda_seq.functional.kernels."),
                "lambda_seq.tasks.detection.",
            )
        ):
            continue  # of libraries that need not be there
        module = importlib.import_module(info.name)
        for kind in vars(module).values():
            if not inspect.isclass(kind) or kind.__module__ != module.__name__ or not source(kind):
                continue
            text = textwrap.dedent(source(kind))
            names = {name for name, _, ours in used(text) if ours} | defined(text)
            others = [base for base in kind.__mro__ if not base.__module__.startswith(("lambda_seq", "builtins"))]
            for name in names - DOCUMENTED:
                if any(name in vars(base) or re.search(rf"\bself\.{name}\b", source(base)) for base in others):
                    path = Path(inspect.getsourcefile(kind)).resolve().relative_to(ROOT)
                    yield path.as_posix(), name


def test_each_is_listed_where_it_is_used():
    uses = found()
    unlisted = [use for use in (*uses, *inherited()) if use[1] not in PRIVATE or use[0] not in PRIVATE[use[1]].files]
    assert not unlisted, (
        f"private names of other libraries: {sorted(set(unlisted))}. Use public ones, or list them in PRIVATE with the "
        "reason why there are none; if they are this library's own, let them have other names than a base class's"
    )
    gone = {(path, name) for name, entry in PRIVATE.items() for path in entry.files} - uses.keys() - set(inherited())
    assert not gone, f"PRIVATE lists what is not used any more: {sorted(gone)}; take it out"


def test_each_is_said_to_be_private_at_its_place():
    uses, silent = found(), []
    for path, text in sources():
        comments = [
            (token.start[0], token.string.lower())
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT
        ]
        lines = {node.name: node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
        for (place, name), first in uses.items():
            line = min(first, lines.get(name, first))  # of a method that is taken over
            if place == path and not any(0 <= line - at <= ABOVE and "private" in said for at, said in comments):
                silent.append((path, line, name))
    assert not silent, f"no comment says of these that they are private, to whom, and why they are used: {silent}"


@pytest.mark.parametrize("name", PRIVATE)
def test_each_is_still_there(name):
    entry = PRIVATE[name]
    module, _, kind = entry.owner.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind, None) if kind else owner
    there = owner is not None and (hasattr(owner, name) or re.search(rf"\b{name}\b", source(owner)))
    library = module.partition(".")[0]
    assert there, (
        f"{library} {importlib.import_module(library).__version__} has no {name} in {entry.owner} any more, which "
        f"{' and '.join(entry.files)} use because: {entry.reason}. Find another way, or narrow the versions in "
        "pyproject.toml"
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("trainer._secret_hook()", ["_secret_hook"]),
        ("from torch._inductor import config", ["_inductor"]),
        ("import torch._dynamo as dynamo", ["_dynamo"]),
        ("from torch.nn import _reduction", ["_reduction"]),
        ("getattr(loader, '_iterator', None)", ["_iterator"]),
        ("class A(B):\n    def run(self):\n        return super()._run()", ["_run"]),
        ("from lambda_seq.layers import _own\nx.public, x.__class__, _", []),
    ],
)
def test_private_names_are_seen(text, names):
    assert [name for name, _, _ in used(text)] == names
