import json
import subprocess
import sys

import kill_and_resume
import pytest
import torch
from evidence.folders import differences
from paths import ROOT
from safetensors.torch import save_file


@pytest.mark.slow(seconds=20)
def test_four_kills(tmp_path):
    script, out = ROOT / "scripts" / "kill_and_resume.py", tmp_path / "found"
    words = [sys.executable, script, "--kills", "4", "--steps", "80", "--seed", "1", "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, timeout=800, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads(out.with_suffix(".json").read_text())["records"]
    assert len(records) == 4
    steps = [record["step"] for record in records]
    assert 0 < steps[0] < steps[1] < steps[2] <= steps[3]  # the fourth may come before it trains
    assert records[1]["during"] == "writing a checkpoint"
    assert "Resumed 4 of 4 times" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize("steps", ["16", "41"])
def test_bad_steps(capsys, steps):
    with pytest.raises(SystemExit, match="2"):
        kill_and_resume.main(["--steps", steps])
    assert f"--steps {steps}: expected 20 or more, and a multiple of 4" in capsys.readouterr().err


@pytest.fixture
def runs(tmp_path):
    """Two equal folders, as a run leaves them, and one that is to be made another one."""
    for name in ("one", "same", "other"):
        folder = tmp_path / name
        for part in ("checkpoints", "csv/version_0", "model"):
            (folder / part).mkdir(parents=True)
        whole = {"state_dict": {"weight": torch.ones(3)}, "optimizer_states": [{"state": {0: {"step": 1}}}]}
        whole |= {
            "callbacks": {"Best": {"path": str(folder / "checkpoints/best.ckpt"), "score": 0.5}},
            "global_step": 7,
        }
        for file in ("last.ckpt", "best.ckpt"):
            torch.save(whole, folder / "checkpoints" / file)
        (folder / "csv/version_0/metrics.csv").write_text(f"step,loss,pixels_per_second\n0,0.5,\n1,0.25,{len(name)}\n")
        save_file({"weight": torch.ones(2)}, folder / "model/model.safetensors", {"save": name})
        (folder / "model/config.json").write_text(json.dumps({"model": "m", "save": name}))
        (folder / "summary.json").write_text(json.dumps({"accuracy": 1.0, "curves": f"{folder}/curves.png"}))
        (folder / "curves.png").write_bytes(b"\x89PNG")
    return tmp_path / "one", tmp_path / "same", tmp_path / "other"


def bit(other):
    file = other / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["state_dict"]["weight"][1] = 1 + 2**-23
    torch.save(checkpoint, file)


def rows(other):
    (other / "csv/version_3").mkdir()
    (other / "csv/version_3/metrics.csv").write_text("step,loss,pixels_per_second\n1,0.125,9\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (bit, ["last.ckpt: state_dict.weight"]),
        (rows, ["metrics.csv: step 1: loss"]),
        (lambda other: (other / "checkpoints/best.ckpt.partial").touch(), ["checkpoints/best.ckpt.partial"]),
        (lambda other: (other / "curves.png").write_bytes(b"\x89PNg"), ["curves.png"]),
        (
            lambda other: (other / "summary.json").write_text('{"curves": ""}'),
            ["summary.json: accuracy", "summary.json: curves"],
        ),
        (
            lambda other: save_file({"weight": torch.zeros(2)}, other / "model/model.safetensors"),
            ["model/model.safetensors: weight"],
        ),
    ],
)
def test_a_single_bit_is_a_difference(runs, change, expected):
    one, same, other = runs
    assert differences(one, same) == []
    change(other)
    assert differences(one, other) == expected


def test_rows_that_were_logged_again_are_no_difference(runs):
    one, _, other = runs
    (other / "csv/version_0/metrics.csv").write_text("step,loss\n0,0.5\n")
    (other / "csv/version_10").mkdir()
    (other / "csv/version_10/metrics.csv").write_text("step,loss,pixels_per_second\n1,0.25,9\n")
    assert differences(one, other) == []
