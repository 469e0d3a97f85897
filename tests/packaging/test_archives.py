"""What wheel and sdist hold, whether the checkout has symbolic links or not."""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from environments import build
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

import lambda_seq

BASE = {"torch", "einops", "jaxtyping", "numpy", "safetensors", "huggingface-hub"}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", folder)) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"lambda_seq-{lambda_seq.__version__}"


def files(folder: str, *patterns: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for pattern in patterns for path in (ROOT / folder).rglob(pattern)}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_wheel_has_one_package_with_the_tasks_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "lambda_seq",
        f"lambda_seq-{lambda_seq.__version__}.dist-info",
    }
    assert len(names) == len(set(names))
    held = {name for name in names if name.startswith("lambda_seq/")}
    tasks = {f"lambda_seq/{name}" for name in files("tasks", "*.py", "*.yaml", "*.md", "*.html")}
    assert {"lambda_seq/tasks/configs/text_classification.yaml", "lambda_seq/tasks/report/page.html"} <= tasks
    trained = files("lambda_seq/models/hub/trained", "*.*")
    assert "lambda_seq/models/hub/trained/spoken_digits/model.safetensors" in trained
    assert held == files("lambda_seq", "*.py") | tasks | trained | {"lambda_seq/py.typed"}


def test_the_wheel_says_what_it_needs(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    metadata = message_from_bytes(archive.read(name))
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert {canonicalize_name(one.name) for one in needed if one.marker is None} == BASE
    assert set(metadata.get_all("Provides-Extra")) == {"train", "detection", "dev", "docs", "huggingface", "onnx"}
    classifiers = metadata.get_all("Classifier")
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)
    assert "Typing :: Typed" in classifiers
    entries = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "lambda-seq = lambda_seq.__main__:main" in entries


def test_the_sdist_has_each_file_once_and_no_links_among_the_code(sdist):
    links = [path.relative_to(sdist).parts[0] for path in sdist.rglob("*") if path.is_symlink()]
    assert set(links) <= {"docs"}
    assert not (sdist / "lambda_seq" / "tasks").exists()
    for name in ("tasks/cli.py", "tests/packaging/test_archives.py", "scripts/check.py", "LICENSE", "hatch_build.py"):
        assert (sdist / name).is_file()


@pytest.mark.parametrize("link", [None, "../tasks"], ids=["sdist", "a checkout without links"])
def test_the_wheel_is_the_same_from_elsewhere(wheel, sdist, tmp_path, link):
    text = sdist / "lambda_seq" / "tasks"
    try:
        if link:
            text.write_text(link)  # as git writes it where links are not supported
        assert sha256(build("wheel", tmp_path, sdist)) == sha256(wheel)
    finally:
        text.unlink(missing_ok=True)


def test_an_editable_installation_imports_from_the_checkout(tmp_path):
    (tmp_path / "built").mkdir()
    editable = zipfile.ZipFile(build_editable(ROOT, tmp_path / "built"))
    assert not [name for name in editable.namelist() if "/" in name and ".dist-info/" not in name]


def test_an_editable_installation_without_links_is_refused(sdist, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as error:
        build_editable(sdist, tmp_path)
    assert "lambda_seq/tasks is not a folder" in error.value.stderr
    assert "git config core.symlinks true" in error.value.stderr


def build_editable(source: Path, folder: Path) -> Path:
    """As pip asks hatchling for it, without the package `editables`, which writes one line of text."""
    code = (
        "import sys, types\n"
        "class EditableProject:\n"
        "    def __init__(self, name, root): self.paths = []\n"
        "    def add_to_path(self, path): self.paths.append(path)\n"
        "    def files(self): return [('lambda_seq.pth', '\\n'.join(self.paths))]\n"
        "    def dependencies(self): return []\n"
        "sys.modules['editables'] = types.SimpleNamespace(EditableProject=EditableProject)\n"
        "import hatchling.build\n"
        "hatchling.build.build_editable(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))
