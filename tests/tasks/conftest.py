"""A command line run in this process, and small data to run it on."""

import sys
from typing import NamedTuple

import datasets
import huggingface_hub.constants
import pytest
import torch
from paths import ROOT
from small_data import image_folder, texts, write_jsonl
from unrendered import DRAWING, Unrendered

from lambda_seq.tasks.cli import main

sys.path.append(str(ROOT / "scripts"))


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory, tmp_path, monkeypatch):
    """No network, no shared cache, one thread, and a working folder of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(variable, "0")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rendered():
    """Figures of command lines have pixels."""
    return True


@pytest.fixture
def cli(monkeypatch, capsys, request):
    """Runs `lambda-seq ARGUMENTS`; raises if the exit status is not the expected one.

    What it leaves out costs as much as the training of a small network: the pixels of figures, but with the fixture
    `rendered`.
    """
    if "rendered" not in request.fixturenames:
        for module in DRAWING:
            monkeypatch.setattr(module, "Figure", Unrendered)

    def run(*arguments, code=0):
        monkeypatch.setattr("sys.argv", ["lambda-seq", *map(str, arguments)])
        capsys.readouterr()
        found = 0
        try:
            main()
        except SystemExit as ending:
            found = ending.code
        result = Result(found, *capsys.readouterr())
        assert found == code, f"exit status {found}, expected {code}:\n{result.out}\n{result.err}"
        return result

    return run


@pytest.fixture
def pictures(tmp_path):
    """An image folder with all three splits, 24, 8 and 8 images."""
    return image_folder(tmp_path / "pictures", {"train": 12, "validation": 4, "test": 4})


@pytest.fixture
def stories(tmp_path):
    """A folder of jsonl files with all three splits, 32, 8 and 8 texts."""
    folder = tmp_path / "stories"
    for split, count in {"train": 32, "validation": 8, "test": 8}.items():
        write_jsonl(folder / f"{split}.jsonl", texts(count))
    return folder
