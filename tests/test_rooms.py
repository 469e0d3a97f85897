"""Rooms: imports go down the list only, and no modules import one another in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (  # each may import itself and those in front of it
    "lambda_seq.functional",
    "lambda_seq.layers",
    "lambda_seq.models",
    "lambda_seq.inference",
    "lambda_seq",  # its __init__, which users import
    "lambda_seq.parallel",
    "lambda_seq.interop",
    "lambda_seq.tasks",
    "lambda_seq.__main__",  # the command
    "scripts",
)


def sources():
    """Path of each module, by its name."""
    found = {}
    for folder, prefix in (("lambda_seq", "lambda_seq"), ("tasks", "lambda_seq.tasks"), ("scripts", "scripts")):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "lambda_seq" and parts[0] == "tasks":
                continue  # the same files by a link
            found[".".join([prefix, *(part for part in parts if part != "__init__")])] = file
    return found


SOURCES = sources()


def room(module):
    """Place of a module's room in the list."""
    names = [name for name in ROOMS if module == name or (name != "lambda_seq" and module.startswith(f"{name}."))]
    assert names, f"{module} is in no room"
    return ROOMS.index(max(names, key=len))


def imported(node):
    """Modules of the repository that a statement imports."""
    if isinstance(node, ast.Import):
        wanted = [alias.name for alias in node.names]
    else:
        assert not node.level, "imports are absolute"
        wanted = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in wanted:
        for candidate in (name, name.rpartition(".")[0]):
            for module in (candidate, f"scripts.{candidate}"):  # scripts see one another by their names
                if module in SOURCES:
                    yield module, name
                    break
            else:
                continue
            break


def statements(tree, *, at_import):
    """Imports of a module; at_import: those alone that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from statements(ast.Module([other], []), at_import=at_import)
        else:
            yield from statements(node, at_import=at_import)


def imports(module, *, at_import):
    """(module, name) of each import of a module."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    for node in statements(tree, at_import=at_import):
        yield from imported(node)


def test_the_walk_sees_what_is_there():
    assert {"lambda_seq.models.registry", "lambda_seq.tasks.cli", "scripts.quickstart"} <= SOURCES.keys()
    assert "lambda_seq.functional.api" in [found for found, _ in imports("lambda_seq.functional", at_import=True)]
    assert room("lambda_seq") < room("lambda_seq.tasks.cli") < room("scripts.demo")
    assert room("lambda_seq.models.vision.resnet") < room("lambda_seq")


@pytest.mark.parametrize("name", ROOMS)
def test_imports_go_down(name):
    """Those inside of functions, too; all may ask for the version."""
    up = [
        f"{module} imports {found}"
        for module in SOURCES
        if room(module) == ROOMS.index(name)
        for found, whole in imports(module, at_import=False)
        if room(found) > room(module) and whole != "lambda_seq.__version__"
    ]
    assert up == []


def test_no_modules_import_one_another_in_a_circle():
    """In models not even by imports inside of functions."""
    graph = {}
    for module in SOURCES:
        at_import = not module.startswith("lambda_seq.models")
        found = {name for name, whole in imports(module, at_import=at_import) if whole != "lambda_seq.__version__"}
        graph[module] = found - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")
