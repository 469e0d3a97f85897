"""The cost model: it counts what is done, chooses by it, and says so."""

import json
import math
import sys
from functools import partial

import pytest
import torch
from problems import make
from torch.utils.flop_counter import FlopCounterMode

from lambda_seq import functional as LF
from lambda_seq.functional import dispatch, rates
from lambda_seq.functional.fft import fast_length

plan_module = sys.modules["lambda_seq.functional.plan"]  # the package's attribute of that name is the function

# torch counts baddbmm, but not in place
IN_PLACE = {torch.ops.aten.baddbmm_: lambda total, left, right, **_: 2 * math.prod(left) * right[-1]}


def meta(size, scope, *, batch=1, heads=4, dim_key=16, dim_value=64, causal=False, device="cpu", **options):
    """A plan for sizes of any length: the tensors hold no memory."""

    def empty(*shape):
        return torch.empty(*shape, device="meta", requires_grad=True)

    return LF.plan(
        empty(batch, heads, *size, dim_key),
        empty(batch, 1, *size, dim_key),
        empty(batch, 1, *size, dim_value),
        empty(1, dim_key, *scope),
        causal=causal,
        device=device,
        **options,
    )


@pytest.fixture(autouse=True)
def no_calibration(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMBDA_SEQ_CACHE", str(tmp_path))
    monkeypatch.setattr(rates, "_measured", None)
    return tmp_path


def test_local_scope_takes_the_band_and_global_scope_the_transform():
    assert meta((16384,), (127,)).algorithm == "banded"
    assert meta((65536,), (131071,)).algorithm == "fft"
    assert meta((14, 14), (27, 27)).algorithm == "dense"
    assert meta((16384,), (127,), heads=16, dim_value=16).algorithm == "toeplitz"


def test_all_candidates_are_there_fastest_first():
    candidates = meta((1024,), (127,)).candidates
    assert {candidate.name for candidate in candidates} == set(LF.ALGORITHMS) - {"auto", "naive"}
    assert sorted(candidates, key=lambda candidate: candidate.seconds[0]) == list(candidates)
    for candidate in candidates:
        assert min(*candidate.multiply_adds, *candidate.peak_bytes, *candidate.seconds) > 0


def test_prints_as_a_table():
    plan = meta((16384,), (127,), causal=True)
    text = str(plan)
    assert "size 16384" in text
    assert "scope 127, causal" in text
    assert text.count("*ms") == 2
    assert "*ms" in next(line for line in text.splitlines() if line.startswith(plan.algorithm))
    assert all(name in text for name in ("banded", "dense", "toeplitz", "convolution", "fft"))


def test_content_only_has_nothing_to_choose():
    inputs = make((9,), None)
    plan = LF.plan(inputs.query, inputs.key, inputs.value, None)
    assert plan.algorithm == plan.backward_algorithm == "content"
    assert "nothing to choose" in str(plan)


def test_auto_runs_what_the_plan_says(monkeypatch):
    called = []
    inputs = make((40,), (5,), content=False)
    plan = LF.plan(inputs.query, None, inputs.value, inputs.embedding)
    for name, module in dispatch._MODULES.items():
        for step in ("forward", "backward"):
            original = getattr(module, step)
            spy = lambda *arguments, n=name, s=step, f=original: called.append((n, s)) or f(*arguments)  # noqa: E731
            monkeypatch.setattr(module, step, spy)
    inputs.run_with_gradients("auto")
    assert called == [(plan.algorithm, "forward"), (plan.backward_algorithm, "backward")]


@pytest.mark.parametrize("name", ["banded", "dense", "toeplitz"])
@pytest.mark.parametrize(("size", "scope"), [((640,), (31,)), ((24, 20), (5, 7)), ((160,), (319,))])
def test_counted_products_are_what_torch_counts(name, size, scope):
    inputs = make(size, scope, content=False, dtype=torch.float32, heads=2, dim_key=8, dim_value=16)
    tensors = [inputs.query, inputs.value, inputs.embedding, inputs.grad]
    query, value, embedding, grad = (tensor.detach().unsqueeze(2) if len(size) == 1 else tensor for tensor in tensors)
    origin = [(taps - 1) // 2 for taps in embedding.shape[2:]]
    sizes = plan_module.Sizes.of_tensors(query, value, embedding, origin)
    candidates = plan_module.candidates(sizes, rates.DEFAULTS["cpu"])
    predicted = next(candidate for candidate in candidates if candidate.name == name).multiply_adds
    module = dispatch._MODULES[name]
    for index, run in enumerate((module.forward, partial(module.backward, grad))):
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            run(query, value, embedding, origin)
        assert predicted[index] == pytest.approx(counter.get_total_flops() / 2, rel=0.1)


@pytest.mark.parametrize("name", ["banded", "dense", "toeplitz", "convolution", "fft"])
@pytest.mark.parametrize("backward", [False, True])
def test_peak_is_linear_in_length(name, backward):
    def peak(length):
        plan = meta((length,), (127,))
        return next(candidate for candidate in plan.candidates if candidate.name == name).peak_bytes[backward]

    assert peak(2**19) <= 2.1 * peak(2**18)


def test_calibration_is_used_and_cached(no_calibration):
    before = rates.rates(torch.device("cpu"), torch.float32)
    assert before == rates.DEFAULTS["cpu"]
    measured = LF.calibrate()
    assert rates.rates(torch.device("cpu"), torch.float32) == measured
    assert all(rate > 0 for rate in vars(measured).values())
    assert json.loads((no_calibration / "rates.json").read_text())
    rates._measured = None  # as in the next process
    assert rates.rates(torch.device("cpu"), torch.float32) == measured


@pytest.mark.parametrize("content", ["", "[1]", '{"cpu": {"products": 1}}', "\x00"])
def test_an_unreadable_calibration_counts_as_none(no_calibration, content):
    (no_calibration / "rates.json").write_text(content)
    assert rates.rates(torch.device("cpu"), torch.float32) == rates.DEFAULTS["cpu"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_calibrating_an_absent_device_says_so():
    with pytest.raises(ValueError, match="device='cuda': no CUDA device"):
        LF.calibrate("cuda")


@pytest.mark.parametrize("least", [1, 2, 3, 17, 1000, 32767, 32769, 100_003])
def test_fast_length(least):
    length = fast_length(least)
    assert least <= length <= max(2, 1.25 * least + 2)
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    assert math.isclose(length, 1)
