"""All Triton kernels are compiled for GPUs, which need not be here, and fit into them: `scripts/compile_kernels.py`."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from kernel_runs import needs_triton
from paths import ROOT

KERNELS = 14
SMALLEST = 99 * 1024  # bytes of shared memory that every GPU from 8.0 on has for a program


def run(*words):
    """A command of Python's from the folder of the repository, in which Triton compiles."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    environment["PYTHONPATH"] = paths
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode == 2 and "brings no ptxas" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def compiled(tmp_path, *words):
    """(kernel, bytes of shared memory, …) of each form of a kernel that is launched."""
    run("scripts/compile_kernels.py", *words, "--out", str(tmp_path))
    (record,) = json.loads((tmp_path / "kernels.json").read_text())["records"]
    return record["kernels"]


@needs_triton
@pytest.mark.slow(seconds=25)
@pytest.mark.parametrize(
    ("words", "kernels"),
    [
        ("--capabilities 9.0 --dtypes bfloat16 --shapes sequence", KERNELS),
        ("--capabilities 8.0 --dtypes float32 --shapes largest", KERNELS),
        ("--capabilities 8.0 --dtypes bfloat16 --shapes intra --parts scan", 6),  # the rest is left to the script
    ],
)
def test_compiles_for_gpus(words, kernels, tmp_path):
    found = compiled(tmp_path, *words.split(), "--quick")
    assert len({name for name, *_ in found}) == kernels
    assert max(shared for _, shared in found) <= SMALLEST


@needs_triton
@pytest.mark.slow
def test_registers_are_read(tmp_path):
    words = "--capabilities 9.0 --dtypes float16 --shapes sequence --parts content"
    found = compiled(tmp_path, *words.split())
    assert {name.split(".")[-1] for name, *_ in found} == {"sum_up", "spread"}
    for _, shared, registers, spilled in found:
        assert 0 < registers <= 255
        assert 0 <= spilled < shared
    table = (tmp_path / "kernels.md").read_text()
    assert "of 227 KiB" in table


@needs_triton
@pytest.mark.slow
def test_no_length_has_kernels_compiled_anew():
    """Numbers that change with the length are no constants, nor known to be multiples of 16."""
    found = Counter(json.loads(run("-c", FORMS).stdout))
    assert len(found) == KERNELS
    # With a content lambda and without; `apply` forward and backward; two walks over parts; sums for three algorithms
    twice = {"weights.forward": 2, "weights.grad_query": 2, "lambdas.apply": 4, "scan.carry": 2, "content.sum_up": 2}
    wanted = {name: next((n for end, n in twice.items() if name.endswith(end)), 1) for name in found}
    assert found == wanted


FORMS = """
import json, sys
import torch
sys.path.insert(0, "scripts")
from gpu.compiling import SHAPES, forms
print(json.dumps(forms(torch.bfloat16, SHAPES["sequence"], (160, 1000, 1024, 4099, 70001, 1048576))))
"""
