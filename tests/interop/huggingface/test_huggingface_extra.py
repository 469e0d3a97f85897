"""Hugging Face is an extra: nothing of it is imported where it is not asked for, and what is missing is said."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

REAL = importlib.util.find_spec


@pytest.fixture
def without(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("lambda_seq.interop.huggingface")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else REAL(name))


def test_what_is_missing_is_said(without):
    with pytest.raises(ModuleNotFoundError) as raised:
        importlib.import_module("lambda_seq.interop.huggingface")
    assert str(raised.value) == (
        'lambda_seq.interop.huggingface needs the package transformers: pip install "lambda-seq[huggingface]"'
    )


def test_nothing_is_imported_before():
    code = (
        "import sys, lambda_seq; lambda_seq.interop.timm; lambda_seq.create_model; print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
