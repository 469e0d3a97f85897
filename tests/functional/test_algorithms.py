"""The registry: an algorithm is one file, and all that knows algorithms knows it by its registration."""

import importlib
import sys

import pytest
import torch
from problems import CASES, make

from lambda_seq import functional as LF
from lambda_seq.functional.position.registry import REGISTRY, Algorithm, register
from lambda_seq.functional.problem import Problem
from lambda_seq.functional.work import Work


@pytest.fixture
def toy():
    """The file imported, and forgotten afterwards."""
    yield importlib.import_module("toy_algorithm")
    REGISTRY.pop("toy", None)
    sys.modules.pop("toy_algorithm")


def test_an_algorithm_is_known_by_its_file_alone(toy):
    assert LF.ALGORITHMS[-1] == "toy"
    assert "toy" in LF.ALGORITHMS
    assert len(LF.ALGORITHMS) == len(list(LF.ALGORITHMS))
    inputs = make((9,), (3,))
    with pytest.raises(ValueError, match=r"algorithm='tiny': expected one of 'auto', 'naive', .*'toy'"):
        inputs.run("tiny")


@pytest.mark.parametrize("case", [case for case, options in CASES.items() if options["scope"]])
def test_it_is_held_to_the_definition_and_chosen_where_it_is_cheapest(case, toy, monkeypatch):
    monkeypatch.setattr(toy, "WIDEST", 1000)
    inputs, called = make(**CASES[case]), []
    for step in ("forward", "backward"):
        original = getattr(REGISTRY["toy"], step)
        spy = lambda *arguments, s=step, f=original: called.append(s) or f(*arguments)  # noqa: E731
        monkeypatch.setattr(REGISTRY["toy"], step, spy)
    expected = inputs.run_with_gradients("naive")
    for algorithm in ("toy", "auto"):
        torch.testing.assert_close(inputs.run_with_gradients(algorithm), expected, rtol=1e-9, atol=1e-9)
    assert called == ["forward", "backward"] * 2


def test_what_was_chosen_before_it_came_is_chosen_anew():
    inputs = make((9,), (3,), content=False)
    tensors = (inputs.query, None, inputs.value, inputs.embedding)
    sizes = Problem.of(*tensors).sizes
    fastest = sys.modules["lambda_seq.functional.plan"].fastest
    where = sizes, torch.device("cpu"), torch.float64
    before = fastest(*where, backward=False)
    toy = Algorithm("toy", "free", before.forward, before.backward, lambda sizes, backward: (Work(calls=1e-9), 1.0))
    try:
        register(toy)
        assert fastest(*where, backward=False) is toy
        assert LF.plan(*tensors).algorithm == "toy"
    finally:
        REGISTRY.pop("toy")
    assert fastest(*where, backward=False) is before


def test_where_it_does_not_apply_the_plan_says_why(toy):
    inputs = make((61,), (3,))
    plan = LF.plan(inputs.query, inputs.key, inputs.value, inputs.embedding)
    reason = "it is for at most 60 columns, not 61"
    assert dict(plan.unsupported)["toy"] == reason
    assert f"toy does not apply: {reason}" in str(plan).splitlines()
    assert "toy" not in [candidate.name for candidate in plan.candidates]
    torch.testing.assert_close(inputs.run("auto"), inputs.run("naive"))


@pytest.mark.parametrize("size", [(61,), (2, 61)])
def test_where_it_does_not_apply_asking_for_it_is_an_error(toy, size):
    inputs = make(size, (3,) * len(size))
    arguments = (inputs.query, inputs.key, inputs.value, inputs.embedding)
    reason = "it is for at most 60 columns, not 61"
    with pytest.raises(ValueError, match=f"algorithm='toy': {reason}; use algorithm='auto'"):
        LF.lambda_layer(*arguments, algorithm="toy")
    with pytest.raises(pytest.skip.Exception, match=f"toy: {reason}"):  # so do the tests that all algorithms share
        inputs.run("toy")
    assert inputs.run("banded").shape == inputs.grad.shape


def test_a_compiled_call_finds_out_when_it_runs(toy):
    compiled = torch.compile(LF.lambda_layer, backend="eager", fullgraph=True)
    inputs = make((9,), (3,))
    arguments = (inputs.query, inputs.key, inputs.value, inputs.embedding)
    torch.testing.assert_close(compiled(*arguments, algorithm="toy"), inputs.run("naive"))
    inputs = make((61,), (3,))
    arguments = (inputs.query, inputs.key, inputs.value, inputs.embedding)
    with pytest.raises(ValueError, match="it is for at most 60 columns"):
        compiled(*arguments, algorithm="toy")


def kernel():
    """A kernel as one for GPUs would be: of one device, some dtypes and sequences, imported where it is run."""

    def forward(query, value, embedding, sizes):
        import a_compiler_that_is_not_there  # noqa: F401

    def supports(sizes, device, dtype):
        if device.type != "cuda":
            return f"it runs on CUDA devices, not on {device}"
        if dtype not in (torch.float16, torch.bfloat16):
            return f"it computes in half precision, not in {dtype}"
        return "it is for sequences, not for images" if (sizes.Y, sizes.RY) != (1, 1) else None

    def count(sizes, backward):
        return Work(products=1.0), 0.0

    return Algorithm("kernel", "a kernel", forward, forward, count, supports)


@pytest.mark.parametrize(
    ("size", "dtype", "planned_for", "reason"),
    [
        ((9,), torch.float16, "cpu", "it runs on CUDA devices, not on cpu"),
        ((9,), torch.float32, "cuda", "it computes in half precision, not in torch.float32"),
        ((3, 3), torch.float16, "cuda", "it is for sequences, not for images"),
        ((9,), torch.bfloat16, "cuda", None),
    ],
)
def test_a_kernel_of_one_device_is_planned_where_there_is_none(size, dtype, planned_for, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setitem(REGISTRY, "kernel", kernel())
    inputs = make(size, (3,) * len(size), dtype=dtype)
    plan = LF.plan(inputs.query, inputs.key, inputs.value, inputs.embedding, device=planned_for)
    assert dict(plan.unsupported).get("kernel") == reason
    assert (plan.algorithm == "kernel") == (reason is None)
    if planned_for == "cpu":
        assert inputs.run("auto").shape == inputs.grad.shape
        with pytest.raises(ValueError, match=f"algorithm='kernel': {reason}"):
            LF.lambda_layer(inputs.query, inputs.key, inputs.value, inputs.embedding, algorithm="kernel")


def test_none_that_applies_is_said(monkeypatch):
    for algorithm in REGISTRY.values():
        monkeypatch.setattr(algorithm, "supports", lambda *where: "not today")
    with pytest.raises(ValueError, match=r"algorithm='auto': no algorithm .*; use algorithm='naive'"):
        make((1234,), (3,)).run("auto")


def test_the_documentation_of_the_argument_lists_them():
    for name, algorithm in REGISTRY.items():
        assert f'"{name}": {algorithm.summary}' in LF.lambda_layer.__doc__
