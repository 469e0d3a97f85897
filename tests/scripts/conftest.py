import json
import subprocess
import sys

import pytest
from commands import environment
from forked import Popen
from paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture
def forks(monkeypatch, tmp_path):
    """Commands that a script starts are forks of a process that has imported what they need."""
    monkeypatch.setattr(subprocess, "Popen", Popen)
    for name, value in environment(HF_DATASETS_CACHE=str(tmp_path / "cache")).items():
        monkeypatch.setenv(name, value)


SMALL = """
data: {class_path: TextData, init_args: {batch_size: 4, validation_fraction: 0.25}}
model:
  class_path: Classification
  init_args:
    network: lambda_encoder
    options: {dim: 8, depth: 2, heads: 2, scope: 3, norm: rms}
trainer: {max_epochs: 2, enable_progress_bar: false, enable_model_summary: false, log_every_n_steps: 1}
"""


@pytest.fixture
def small(tmp_path, forks):
    """Files of a small training on generated texts: its configuration, and a folder of 16 and 4 texts to test."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, count in (("train", 16), ("test", 4)):
        lines = [json.dumps({"text": "ab"[row % 2] * (20 + row), "label": "ab"[row % 2]}) for row in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    configuration = tmp_path / "small.yaml"
    configuration.write_text(SMALL)
    return str(configuration), str(folder)
