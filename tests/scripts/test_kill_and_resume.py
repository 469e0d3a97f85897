import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kill_and_resume import differences

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_four_kills(tmp_path):
    script, out = ROOT / "scripts" / "kill_and_resume.py", tmp_path / "found"
    words = [sys.executable, script, "--kills", "4", "--seed", "1", "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, timeout=800, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads(out.with_suffix(".json").read_text())["records"]
    assert len(records) == 4
    steps = [record["step"] for record in records]
    assert 0 < steps[0] < steps[1] < steps[2] <= steps[3]  # the fourth may come before it trains
    assert records[1]["during"] == "writing a checkpoint"
    assert "Resumed 4 of 4 times" in out.with_suffix(".md").read_text()


def test_a_single_bit_is_a_difference(tmp_path):
    whole = {"state_dict": {"weight": torch.ones(3)}, "optimizer_states": [{"state": {0: {"step": 1}}}]}
    whole |= {"lr_schedulers": [], "global_step": 7}
    for name in ("one", "same", "other"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        for file in ("last.ckpt", "best.ckpt"):
            torch.save(whole, tmp_path / name / "checkpoints" / file)
    whole["state_dict"]["weight"][1] = 1 + 2**-23
    torch.save(whole, tmp_path / "other" / "checkpoints" / "last.ckpt")
    assert differences(tmp_path / "one", tmp_path / "same") == []
    assert differences(tmp_path / "one", tmp_path / "other") == ["last.ckpt: state_dict.weight"]
