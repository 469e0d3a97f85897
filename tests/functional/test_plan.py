"""The cost model: it counts what is done, chooses by it, and says so."""

import json
import math
import sys
from functools import partial

import pytest
import torch
from problems import EVERYWHERE, make
from torch.utils.flop_counter import FlopCounterMode

from lambda_seq import functional as LF
from lambda_seq.functional import calibration, rates
from lambda_seq.functional.position.fft import fast_length
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem, as_image

candidates = sys.modules["lambda_seq.functional.plan"].candidates  # the package's attribute `plan` is the function

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
    assert {candidate.name for candidate in candidates} == set(EVERYWHERE) - {"auto", "naive"}
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


@pytest.mark.parametrize("causal", [False, True])
def test_a_content_lambda_beside_is_counted(causal):
    """Where it is one for all positions, and the sum is outside: H · K · V multiply-adds a position, twice backward."""
    inputs = make((300,), (31,), causal=causal)
    whole, part = (
        LF.plan(inputs.query, key, inputs.value, inputs.embedding, causal=causal).candidates
        for key in (inputs.key, None)
    )
    alone = {candidate.name: candidate for candidate in part}
    more = 0 if causal else 2 * 300 * 3 * 4 * 5
    for candidate in whole:
        forward, backward = candidate.multiply_adds
        assert forward == pytest.approx(alone[candidate.name].multiply_adds[0] + more)
        assert backward == pytest.approx(alone[candidate.name].multiply_adds[1] + 2 * more)
        assert (candidate.seconds[0] > alone[candidate.name].seconds[0]) == (not causal)


def test_content_only_has_nothing_to_choose():
    inputs = make((9,), None)
    plan = LF.plan(inputs.query, inputs.key, inputs.value, None)
    assert plan.algorithm == plan.backward_algorithm == "content"
    assert "nothing to choose" in str(plan)


@pytest.mark.parametrize(("size", "batch"), [((0,), 2), ((9,), 0), ((0, 3), 1)])
def test_nothing_has_nothing_to_choose(size, batch):
    inputs = make(size, (3,) * len(size), batch=batch)
    plan = LF.plan(inputs.query, inputs.key, inputs.value, inputs.embedding)
    assert "nothing in it, nothing to choose" in str(plan)


def test_auto_runs_what_the_plan_says(monkeypatch):
    called = []
    inputs = make((40,), (5,), content=False)
    plan = LF.plan(inputs.query, None, inputs.value, inputs.embedding)
    for name, algorithm in REGISTRY.items():
        for step in ("forward", "backward"):
            original = getattr(algorithm, step)
            spy = lambda *arguments, n=name, s=step, f=original: called.append((n, s)) or f(*arguments)  # noqa: E731
            monkeypatch.setattr(algorithm, step, spy)
    inputs.run_with_gradients("auto")
    assert called == [(plan.algorithm, "forward"), (plan.backward_algorithm, "backward")]


# The products of single positions that "toeplitz" makes cost three times their arithmetic
@pytest.mark.parametrize(("name", "within"), [("banded", 1e-9), ("dense", 1e-9), ("toeplitz", 0.1)])
@pytest.mark.parametrize(("size", "scope"), [((640,), (31,)), ((24, 20), (5, 7)), ((160,), (319,))])
def test_counted_products_are_what_torch_counts(name, within, size, scope):
    inputs = make(size, scope, content=False, dtype=torch.float32, heads=2, dim_key=8, dim_value=16)
    tensors = [inputs.query, inputs.value, inputs.embedding, inputs.grad]
    sizes = Problem.of(inputs.query, None, inputs.value, inputs.embedding).sizes
    query, value, embedding, grad = (as_image(x.detach()) if len(size) == 1 else x.detach() for x in tensors)
    found = candidates(sizes, torch.device("cpu"), torch.float32, rates.DEFAULTS["cpu"])
    predicted = next(candidate for candidate in found if candidate.name == name).multiply_adds
    algorithm = REGISTRY[name]
    for index, run in enumerate((algorithm.forward, partial(algorithm.backward, grad))):
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            run(query, value, embedding, sizes)
        assert predicted[index] == pytest.approx(counter.get_total_flops() / 2, rel=within)


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


def test_speeds_of_a_gpu_are_its_own(monkeypatch):
    """Those of the CPU, by which fits are made, have no part in them."""
    probed = rates.Rates(5e12, 400e9, 1e12, 3e12, 2e12, 90e3)
    monkeypatch.setattr(rates, "_probe", lambda device, dtype: probed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(calibration, "try_out", lambda *_: None)  # kernels have nothing to run on
    assert LF.calibrate("cuda") == probed
    assert rates.rates(torch.device("cuda"), torch.float32) == probed
    monkeypatch.setattr(rates, "_probe", lambda device, dtype: rates.PROBED["cpu"])
    measured = LF.calibrate("cpu")
    for name, rate in vars(rates.DEFAULTS["cpu"]).items():
        assert getattr(measured, name) == pytest.approx(rate)


ENTRY = dict.fromkeys(("products", "streamed", "transforms", "convolutions", "convolution_gradients", "calls"), 1e9)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "Expecting value"),
        ("[1]", "a list for a table of devices"),
        ("\x00", "Expecting value"),
        ("\udcff", "can't decode"),
        ('{"cpu": {"products": 1}}', "'cpu': expected products, streamed"),
        ('{"cpu": 3}', "'cpu': expected products, streamed"),
        *(
            (json.dumps({"cpu": ENTRY | {"calls": rate}}), r"'cpu': calls is .*, expected a number above 0")
            for rate in (0, -1.0, math.nan, math.inf, "fast", None, True, [1])
        ),
    ],
)
def test_speeds_that_cannot_be_used_are_ignored_with_one_warning(no_calibration, content, fault):
    file = no_calibration / "rates.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    inputs = make((9,), (3,))
    with pytest.warns(UserWarning, match=fault) as warned:
        expected = inputs.run("auto")
    message = str(warned[0].message)
    assert len(warned) == 1
    assert str(file) in message
    assert "delete the file, or measure again by lambda_seq.functional.calibrate()" in message
    torch.testing.assert_close(inputs.run("auto"), expected)  # warns no more
    assert rates.rates(torch.device("cpu"), torch.float32) == rates.DEFAULTS["cpu"]


def test_good_speeds_beside_bad_ones_are_used_and_kept(no_calibration):
    name = rates.name_of(torch.device("cpu"), torch.float32)
    file = no_calibration / "rates.json"
    file.write_text(json.dumps({"another": ENTRY | {"calls": 0}, name: ENTRY}))
    with pytest.warns(UserWarning, match="'another': calls is 0"):
        assert rates.rates(torch.device("cpu"), torch.float32) == rates.Rates(**ENTRY)
    LF.calibrate("cpu", torch.float64)
    assert set(json.loads(file.read_text())) == {name, rates.name_of(torch.device("cpu"), torch.float64)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_calibrating_an_absent_device_says_so():
    with pytest.raises(ValueError, match="device='cuda': no CUDA device"):
        LF.calibrate("cuda")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("gpu",), ValueError, "device='gpu': expected a device of this machine"),
        (("meta",), ValueError, "meta.*: expected a device of this machine"),
        ((0.5,), ValueError, "device=0.5: expected a device of this machine"),
        (("cpu", torch.int64), TypeError, "dtype=torch.int64: expected a floating point dtype"),
        (("cpu", "float32"), TypeError, "dtype='float32': expected a floating point dtype"),
    ],
)
def test_calibrating_what_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        LF.calibrate(*arguments)


@pytest.mark.parametrize("least", [1, 2, 3, 17, 1000, 32767, 32769, 100_003])
def test_fast_length(least):
    length = fast_length(least)
    assert least <= length <= max(2, 1.25 * least + 2)
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    assert math.isclose(length, 1)
