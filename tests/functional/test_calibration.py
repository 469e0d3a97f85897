"""Kernels are tried before "auto" takes them, and what came of it is kept."""

import json

import pytest
import torch
from problems import make

from lambda_seq import functional as LF
from lambda_seq.functional import calibration, rates
from lambda_seq.functional.algorithm import REGISTRIES
from lambda_seq.functional.calibration import Trial
from lambda_seq.functional.position.registry import REGISTRY, Algorithm
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.work import Work

SPEED = rates.Rates(5e12, 400e9, 1e12, 3e12, 2e12, 90e3)
GPU = torch.device("cuda")
BANDED = REGISTRY["banded"]


@pytest.fixture(autouse=True)
def no_calibration(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMBDA_SEQ_CACHE", str(tmp_path))
    for module, name in ((rates, "_measured"), (calibration, "_tried")):
        monkeypatch.setattr(module, name, None)
    return tmp_path


def kernel(forward=BANDED.forward, backward=BANDED.backward, supports=lambda *where: None):
    """One that no device has proved, and that would be the fastest by far."""

    def count(sizes, both):
        return Work(calls=2e-3 if both else 1e-3), 1.0

    return Algorithm("kernel", "a kernel", forward, backward, count, supports, trusted=False)


@pytest.fixture
def gpu(monkeypatch):
    """A device of the type "cuda", where everything is in fact the CPU's; gives what calibrates it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(rates, "_probe", lambda device, dtype: SPEED)
    monkeypatch.setattr(rates, "seconds", lambda run, device: (run(), 2e-8)[1])
    for registry in REGISTRIES.values():
        for name, algorithm in list(registry.items()):
            if not algorithm.trusted:
                monkeypatch.delitem(registry, name)
    try_out, cpu = calibration.try_out, torch.device("cpu")
    monkeypatch.setattr(REGISTRY, "fast", REGISTRY.right[1])
    monkeypatch.setattr(calibration, "try_out", lambda kernel, part, device, *rest: try_out(kernel, part, cpu, *rest))
    return lambda algorithm: (monkeypatch.setitem(REGISTRY, "kernel", algorithm), LF.calibrate(GPU))


def plan(device=GPU):
    inputs = make((40,), (5,), content=False, dtype=torch.float32)
    return LF.plan(inputs.query, None, inputs.value, inputs.embedding, device=device)


def test_a_kernel_is_not_used_before_it_was_tried(gpu, monkeypatch):
    monkeypatch.setitem(REGISTRY, "kernel", kernel())
    found = plan()
    assert found.algorithm != "kernel"
    assert found.backward_algorithm != "kernel"
    reason = "not calibrated on this device; run lambda_seq.functional.calibrate('cuda', torch.float32)"
    assert f"kernel not used: {reason}" in str(found)
    assert dict(found.unused)["kernel"].startswith(reason)


def test_a_kernel_that_is_right_is_used_from_then_on(gpu, no_calibration, monkeypatch):
    gpu(kernel())
    assert plan().algorithm == plan().backward_algorithm == "kernel"
    assert plan().unused == ()
    trial = calibration.tried(GPU, torch.float32)["kernel"]
    assert trial.fault == ""
    assert plan().candidates[0].seconds == pytest.approx((2e-8, 2e-8))  # as measured
    assert trial.slowness == pytest.approx((2e-8 / (1e-3 / SPEED.calls),) * 2)
    monkeypatch.setattr(calibration, "_tried", None)  # as in the next process
    assert calibration.tried(GPU, torch.float32) == {"kernel": trial}
    assert calibration.tried(GPU, torch.float16) == {}
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert calibration.tried(GPU, torch.float32) == {}


def spoilt(*given):
    output = BANDED.forward(*given).clone()
    output[0, 0, 0, 0, 0] += 1
    return output


def not_a_number(*given):
    return tuple(x * float("nan") for x in BANDED.backward(*given))


def broken(*given):
    raise RuntimeError("no such instruction\nand a long list")


@pytest.mark.parametrize(
    ("algorithm", "fault"),
    [
        (kernel(forward=spoilt), r"its output differs from the definition's by .*, where 1e-05 is right"),
        (kernel(backward=not_a_number), r"its gradient of query differs from the definition's by nan"),
        (kernel(forward=broken), r"RuntimeError: no such instruction$"),
    ],
    ids=["output", "gradient", "error"],
)
def test_a_kernel_that_is_wrong_is_named_and_never_used(algorithm, fault, gpu):
    with pytest.warns(UserWarning, match=f"algorithm='kernel' is not used on a GPU, torch.float32: {fault}"):
        gpu(algorithm)
    assert plan().algorithm != "kernel"
    assert "kernel not used: it failed when it was tried on this device: " in str(plan())


def test_a_kernel_that_applies_to_nothing_here_is_not_tried(gpu):
    gpu(kernel(forward=broken, supports=lambda *where: "not here"))
    assert calibration.tried(GPU, torch.float32) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("part", REGISTRIES)
def test_all_algorithms_are_right_by_its_measure(part, dtype):
    registry = REGISTRIES[part]
    for shape in registry.right[:2]:
        case = registry.case(shape, torch.device("cpu"), dtype)
        assert not any(calibration.wrong(one, case, dtype) for one in registry.values() if one.trusted)


def test_on_a_cpu_kernels_are_neither_tried_nor_used(monkeypatch):
    monkeypatch.setitem(REGISTRY, "kernel", kernel(forward=broken))
    monkeypatch.setattr(rates, "_probe", lambda device, dtype: SPEED)
    LF.calibrate("cpu")
    found = plan("cpu")
    assert dict(found.unused) == {"kernel": "kernels are for GPUs; on a CPU they are run to be tested"}
    assert not found.guessed
    assert "guesses" not in str(found)


def test_times_that_nobody_measured_are_called_guesses(monkeypatch, gpu):
    assert plan().guessed
    line = (
        "predicted times are guesses: nothing was measured on cuda; run lambda_seq.functional.calibrate('cuda', torch."
    )
    assert line in str(plan())
    LF.calibrate(GPU)
    assert not plan().guessed
    assert line not in str(plan())


def test_a_plan_for_a_gpu_that_is_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = plan("cuda")
    assert found.guessed
    assert {"triton_weights", "triton_lambdas"} <= dict(found.unused).keys()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        '{"a GPU": 1}',
        '{"a GPU": {"kernel": 3}}',
        '{"a GPU": {"kernel": {"fault": "", "slowness": [1]}}}',
        json.dumps({"a GPU": {"kernel": {"fault": "", "slowness": [0, 1]}}}),
        json.dumps({"a GPU": {"kernel": {"fault": None, "slowness": [1, 1]}}}),
    ],
)
def test_trials_that_cannot_be_read_count_as_none_with_one_warning(content, no_calibration):
    (no_calibration / "kernels.json").write_text(content)
    with pytest.warns(UserWarning, match=r"kernels\.json holds trials of kernels that cannot be used"):
        assert calibration.tried(GPU, torch.float32) == {}
    assert calibration.tried(GPU, torch.float32) == {}  # warns no more


@pytest.mark.parametrize("part", REGISTRIES)
def test_the_kernels_can_be_tried_by_some_shape(part):
    registry = REGISTRIES[part]
    kernels = [algorithm for algorithm in registry.values() if not algorithm.trusted]
    assert kernels
    for kernel in kernels:
        right, fast = [calibration.sizes_of(registry, one) for one in registry.right], registry.fast
        assert all(isinstance(sizes, Sizes) for sizes in right)
        assert any(kernel.supports(sizes, GPU, torch.float32) is None for sizes in right)
        assert kernel.supports(calibration.sizes_of(registry, fast), GPU, torch.float32) is None
    assert Trial("").slowness == (1.0, 1.0)
