"""The content lambda's Triton kernels: what the definition computes, what they count, and that GPUs can run them.

`run` calls a function of `kernel_runs` where kernels run.
"""

import sys

import kernel_runs
import pytest
import torch
from kernel_runs import check, needs_triton
from problems import make

from lambda_seq import functional as LF
from lambda_seq.functional import calibration
from lambda_seq.functional.algorithm import REGISTRIES
from lambda_seq.functional.problem import Problem

KERNELS = {"content": "triton_content", "scan": "triton_scan"}
ALONE = {"content": True, "scope": None}
CASES = {
    "odd length": {"size": (37,)},
    "several tiles and parts": {"size": (300,), "batch": 1, "heads": 1, "scale": 3.0},
    "length 1, not normalised": {"size": (1,), "batch": 1, "key_norm": "none"},
    "length 2, batch 1": {"size": (2,), "batch": 1},
    "intra-depth": {"size": (70,), "intra": 3, "batch": 1},
    "masked": {"size": (67,), "hidden": 0.4},
    "k and v beyond a power of two": {"size": (13,), "dim_key": 17, "dim_value": 33, "batch": 1},
    "k and v of 1": {"size": (13,), "dim_key": 1, "dim_value": 1, "batch": 1},
    "image, l2": {"size": (5, 7), "key_norm": "l2", "hidden": 0.4},
    "not normalised": {"size": (21,), "key_norm": "none", "intra": 2},
    "steep keys": {"size": (90,), "scale": 40.0, "batch": 1},
    "causal, odd length": {"size": (37,), "causal": True, "batch": 1},
    "causal, several parts, one head": {"size": (150,), "causal": True, "batch": 1, "heads": 1, "scale": 3.0},
    "causal, length 2": {"size": (2,), "causal": True, "batch": 1},
    "causal, masked, intra-depth": {"size": (40,), "causal": True, "batch": 1, "hidden": 0.4, "intra": 2},
    "causal, five heads, l2": {"size": (19,), "causal": True, "batch": 1, "heads": 5, "key_norm": "l2"},
    "causal, not normalised": {"size": (19,), "causal": True, "batch": 1, "key_norm": "none", "dim_key": 17},
    "causal, steep keys": {"size": (20,), "causal": True, "batch": 1, "scale": 40.0},
}
HALF = ("several tiles and parts", "image, l2", "steep keys", "masked", "causal, odd length", "causal, steep keys")


@needs_triton
@pytest.mark.parametrize(
    ("case", "dtype"), [*((case, torch.float32) for case in CASES), *((case, torch.float16) for case in HALF)]
)
def test_equals_the_definition(case, dtype, run, device):
    check(run(kernel_runs.compare, "content", ALONE | CASES[case], dtype, device.type), dtype)


@needs_triton
@pytest.mark.parametrize("part", KERNELS)
def test_bfloat16_is_as_good_as_the_definitions(part, run, device):
    assert set(run(kernel_runs.trials, part, torch.bfloat16, device.type)) == {""}


@needs_triton
def test_beside_a_position_lambda(run, device):
    options = {"content": True, "size": (29,), "scope": (5,), "hidden": 0.4}
    check(run(kernel_runs.compare, "content", options, torch.float32, device.type), torch.float32)


@needs_triton
@pytest.mark.parametrize(
    ("key_norm", "causal"), [*((one, False) for one in LF.KEY_NORMS), ("softmax", True), ("l2", True)]
)
def test_a_row_that_is_masked_whole_is_zero(key_norm, causal, run, device):
    found = run(kernel_runs.hidden_row, {"size": (19,), "key_norm": key_norm, "causal": causal}, device.type)
    assert found == dict.fromkeys(("output", "query", "key", "value"), 0.0)


@needs_triton
@pytest.mark.parametrize("case", ["several tiles and parts", "causal, odd length"])
def test_two_runs_are_equal_bit_for_bit(case, run, device):
    assert run(kernel_runs.twice, "content", ALONE | CASES[case], torch.float32, device.type) == []


@needs_triton
@pytest.mark.parametrize("part", KERNELS)
def test_products_are_counted(part, run, device):
    if device.type == "cuda":
        pytest.skip("the interpreter counts them")
    counted, done = run(kernel_runs.content_products, part)
    for predicted, found in zip(counted, done, strict=True):
        assert 0.95 * found <= predicted <= 2 * found


# Which of them is taken


def found(*, content=True, scope=None, causal=False, device="cuda"):
    inputs = make((40,), scope, content=content, causal=causal, dtype=torch.float32)
    return LF.plan(inputs.query, inputs.key, inputs.value, inputs.embedding, causal=causal, device=device)


@pytest.fixture
def proved(monkeypatch):
    """Kernels count as tried on GPUs: right, and so many times slower forward and backward than predicted."""

    def slowness(*both):
        monkeypatch.setattr(calibration, "kernels", lambda *where: dict.fromkeys(KERNELS.values(), both))
        trials = {name: calibration.Trial("", both) for name in KERNELS.values()}
        monkeypatch.setattr(calibration, "tried", lambda device, dtype: trials if device.type == "cuda" else {})
        for module in ("plan", "summaries"):
            monkeypatch.setattr(sys.modules[f"lambda_seq.functional.{module}"], "kernels", calibration.kernels)

    return slowness


@pytest.mark.parametrize(("part", "name"), KERNELS.items())
def test_the_plan_takes_a_kernel_when_it_was_tried(part, name, proved):
    causal = part == "scan"
    before = found(causal=causal)
    assert before.content_algorithms == (part, part)
    assert dict(before.unused)[name].startswith("not calibrated on this device")
    assert f"{name} not used: not calibrated" in str(before)
    proved(1.0, 1e6)  # fast forward, slow backward
    after = found(causal=causal)
    assert after.content_algorithms == (name, part)
    assert after.unused == ()
    assert f"content lambda: {name} forward, {part} backward" in str(after)
    both = found(causal=causal, scope=(5,))
    assert both.content_algorithms == (name, part)
    assert f"content lambda: {name} forward" in str(both)
    assert found(content=False, scope=(5,)).content_algorithms == ()


@pytest.mark.parametrize(("part", "name"), KERNELS.items())
def test_a_cpu_has_torch_s_operations(part, name, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    plan = found(causal=part == "scan", device="cpu")
    assert plan.content_algorithms == (part, part)
    assert dict(plan.unsupported) == {name: "it runs on CUDA devices, not on cpu"}


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1024), (torch.bfloat16, 2048)])
def test_a_scan_holds_its_state_in_registers(dtype, most):
    """In float32, of whose numbers products take two parts each, they hold half as many."""
    inputs = make((9,), None, causal=True)
    sizes = Problem.of(inputs.query, inputs.key, inputs.value, None, causal=True).sizes.of_content(causal=True)
    supports = REGISTRIES["scan"][KERNELS["scan"]].supports
    assert supports(sizes._replace(K=16, V=most // 16), torch.device("cuda"), dtype) is None
    reason = supports(sizes._replace(K=17, V=most // 16), torch.device("cuda"), dtype)
    assert reason == f"it is for k · v up to {most} in {dtype}, in powers of two from 16, not 32 · {most // 16}"


@pytest.mark.parametrize("part", KERNELS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"K": 65}, "k up to 64 and v up to 128, not 65 and 5"),
        ({"V": 129}, "k up to 64 and v up to 128, not 4 and 129"),
        ({"X": 2**30}, "2^30 positions"),
    ],
)
def test_where_they_do_not_apply_they_say_why(part, change, reason):
    inputs = make((9,), None)
    sizes = Problem.of(inputs.query, inputs.key, inputs.value, None).sizes.of_content(part == "scan")
    kernel = REGISTRIES[part][KERNELS[part]]
    assert kernel.supports(sizes, torch.device("cuda"), torch.float32) is None
    assert reason in kernel.supports(sizes._replace(**change), torch.device("cuda"), torch.float32)
    assert "not in torch.float64" in kernel.supports(sizes, torch.device("cuda"), torch.float64)
