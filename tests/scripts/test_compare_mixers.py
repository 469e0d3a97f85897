"""The comparison of mixers, on generated pictures."""

import json
import subprocess
import sys
from pathlib import Path

import compare_mixers
import numpy as np
import pytest
from PIL import Image

CONFIG = """
data: {class_path: ImageData, init_args: {batch_size: 4, validation_fraction: 0.25}}
model:
  class_path: Classification
  init_args:
    network: lambda_resnet_tiny
    options: {width: 4, heads: 2, scope: 3, blocks: [1]}
trainer: {max_epochs: 2, enable_progress_bar: false, enable_model_summary: false, log_every_n_steps: 1}
"""


@pytest.fixture
def command(tmp_path, forks):
    """Arguments of a small comparison in a folder of its own."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label in ("a", "b"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{index}.png")
    (tmp_path / "small.yaml").write_text(CONFIG)
    return [
        *("--config", str(tmp_path / "small.yaml"), "--path", str(tmp_path / "pictures")),
        *("--out", str(tmp_path / "results"), "--work", str(tmp_path / "work")),
    ]


def test_compares_and_goes_on(command, tmp_path, capfd, monkeypatch):
    stopped = [*command, "--mixers", "L", "--", "--trainer.max_epochs=1"]
    assert compare_mixers.main([*command, "--mixers", "L", "Z", "C+se"]) == 1  # there is no mixer Z
    table = (tmp_path / "results" / "mixers_small.md").read_text()
    assert "Z, seed 0: failed" in table
    records = json.loads((tmp_path / "results" / "mixers_small.json").read_text())["records"]
    assert [record["key"]["mixer"] for record in records] == ["L", "C+se"]
    assert all(record["epochs"] == 2 and record["seconds_per_epoch"] > 0 for record in records)
    assert records[0]["parameters"] != records[1]["parameters"]
    for record in records:
        assert f"| {record['key']['mixer']} | {100 * record['test_accuracy']:.2f} % |" in table

    monkeypatch.setattr(subprocess, "run", lambda *given, **options: pytest.fail("trained again"))
    assert compare_mixers.main([*command, "--mixers", "L", "C+se"]) == 0
    with pytest.raises(pytest.fail.Exception):  # another recipe is another training
        compare_mixers.main(stopped)
    assert "small: mixers compared" in capfd.readouterr().out


def test_an_interrupted_comparison_keeps_what_it_has(command, monkeypatch, capsys):
    def interrupted(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    assert compare_mixers.main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_mixers_become_options_of_the_network():
    assert compare_mixers.network_options("C") == ["--model.options.placement=C"]
    assert compare_mixers.network_options("C+se+width=8") == [
        "--model.options.placement=C",
        "--model.options.se=0.0625",
        "--model.options.width=8",
    ]


def test_several_seeds_are_a_mean_and_half_a_range():
    assert compare_mixers.percent([0.5]) == "50.00 %"
    assert compare_mixers.percent([0.5, 0.52]) == "51.00 ± 1.00 %"


@pytest.mark.parametrize(
    ("changed", "message"),
    [(["--mixers", "L+scope"], "--mixers L+scope: expected"), (["--config", "nowhere.yaml"], "nowhere.yaml")],
)
def test_what_cannot_be_compared(command, changed, message, capsys):
    assert compare_mixers.main([*command, *changed]) == 2
    assert message in capsys.readouterr().err


def test_the_script_runs_from_anywhere(tmp_path):
    script = Path(compare_mixers.__file__)
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "--mixers" in shown.stdout
