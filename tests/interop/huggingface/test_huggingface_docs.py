"""The code of the page about Hugging Face runs, in one process that begins without anything imported."""

import re
import subprocess
import sys

import pytest
from paths import ROOT

pytest.importorskip("transformers", reason="transformers is not installed: .[huggingface]")
pytest.importorskip("peft")


@pytest.mark.slow
def test_the_page_runs(tmp_path):
    page = (ROOT / "docs" / "huggingface.md").read_text(encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```py\n(.*?)```", page, re.DOTALL)), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "{'label': " in done.stdout
    assert "trainable params: " in done.stdout
    assert done.stdout.rstrip().endswith("torch.Size([1, 36])")
