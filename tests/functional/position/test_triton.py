"""The Triton kernels compute what the definition does: on a GPU with --device cuda, else step by step on the CPU.

`run` calls a function of `kernel_runs` where kernels run.
"""

import importlib.util

import kernel_runs
import pytest
import torch
from kernel_runs import check, needs_triton
from problems import make

from lambda_seq import functional as LF
from lambda_seq.functional import applying, launching
from lambda_seq.functional.position import triton_lambdas, triton_weights
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem

KERNELS = ("triton_weights", "triton_lambdas")

# Where the interpreter takes a second: it is slow for each tile, not for each number
CASES = {
    "odd length": {"size": (37,), "scope": (7,)},
    "several tiles": {"size": (71,), "scope": (9,), "heads": 2, "batch": 1},
    "length 1, batch 1": {"size": (1,), "scope": (3,), "batch": 1},
    "scope 1": {"size": (9,), "scope": (1,)},
    "intra-depth": {"size": (21,), "scope": (5,), "intra": 3, "batch": 1},
    "wider than the input": {"size": (11,), "scope": (41,)},
    "global": {"size": (26,), "scope": (51,), "batch": 1},
    "widest that both take": {"size": (90,), "scope": (63,), "heads": 1, "batch": 1},
    "masked": {"size": (29,), "scope": (9,), "hidden": 0.4},
    "causal": {"size": (27,), "scope": (6,), "causal": True},
    "causal, wider than the input, masked": {"size": (15,), "scope": (20,), "causal": True, "hidden": 0.4},
    "causal, intra-depth": {"size": (15,), "scope": (15,), "causal": True, "intra": 2},
    "one head": {"size": (67,), "scope": (5,), "heads": 1, "batch": 1},
    "more heads than rows of a tile": {"size": (3,), "scope": (3,), "heads": 67, "batch": 1},
    "k and v beyond a power of two": {"size": (13,), "scope": (5,), "dim_key": 17, "dim_value": 33, "batch": 1},
    "most keys": {"size": (37,), "scope": (41,), "dim_key": 64, "dim_value": 3, "batch": 1},
    "k and v of 1": {"size": (13,), "scope": (5,), "dim_key": 1, "dim_value": 1, "batch": 1},
    "image": {"size": (5, 7), "scope": (3, 5), "batch": 1},
    "image, intra-depth, masked": {"size": (3, 5), "scope": (3, 3), "intra": 2, "hidden": 0.4, "batch": 1},
    "image, wider than the input": {"size": (4, 5), "scope": (23, 23), "batch": 1, "heads": 2},
    "image of one column": {"size": (4, 1), "scope": (5, 3), "batch": 1},
}
CAUSAL_IMAGE = ("causal", "image, intra-depth, masked")
# In half precision other numbers go the same ways: one case for each of these ways
HALF = ("odd length", "more heads than rows of a tile", "k and v beyond a power of two", *CAUSAL_IMAGE)


@needs_triton
@pytest.mark.parametrize(
    ("case", "dtype"), [*((case, torch.float32) for case in CASES), *((case, torch.float16) for case in HALF)]
)
@pytest.mark.parametrize("name", KERNELS)
def test_equals_the_definition(name, case, dtype, run, device):
    check(run(kernel_runs.compare, name, CASES[case], dtype, device.type), dtype)


@needs_triton
@pytest.mark.parametrize("case", CAUSAL_IMAGE)
@pytest.mark.parametrize("name", KERNELS)
def test_bfloat16_is_as_good_as_the_definitions(name, case, run, device):
    errors = run(kernel_runs.compare, name, CASES[case], torch.bfloat16, device.type)
    # The interpreter cuts off what a GPU rounds: one unit of the last place of the largest number
    check(errors, torch.bfloat16, 0.0 if device.type == "cuda" else 2**-8)


@needs_triton
@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float32) for case in ("odd length", "intra-depth", "more heads than rows of a tile", "image")),
        *((case, torch.float16) for case in ("masked", "image, intra-depth, masked")),
    ],
)
@pytest.mark.parametrize("name", KERNELS)
def test_with_a_content_lambda(name, case, dtype, run, device):
    check(run(kernel_runs.compare, name, CASES[case] | {"content": True}, dtype, device.type), dtype)


@needs_triton
@pytest.mark.parametrize("name", KERNELS)
def test_the_output_with_a_content_lambda_is_written_once(name, run, device):
    """By the kernel that computes it, and no operation reads it, or writes a part of it, before or after."""
    options = CASES["odd length"] | {"content": True}
    assert run(kernel_runs.passes, name, options, device.type) == []
    assert run(kernel_runs.passes, "banded", options, device.type) != []  # the sum is outside


@needs_triton
def test_calibration_tries_them_with_a_content_lambda(run, device):
    assert REGISTRY.right[-1].content
    assert run(kernel_runs.trials, "position", torch.float32, device.type, slice(-1, None)) == ["", ""]


@pytest.mark.parametrize("name", KERNELS)
def test_a_content_lambda_is_counted_without_a_pass_over_the_output(name):
    alone = problem((40,), (31,), heads=4, dim_key=16, dim_value=64).sizes._replace(X=2**20)
    both = alone._replace(content=True)
    work, together = (REGISTRY[name].count(sizes, False)[0] for sizes in (alone, both))
    assert together.streamed == work.streamed
    assert together.products - work.products <= both.N * both.H * both.K * both.V
    backward = [REGISTRY[name].count(sizes, True)[0].streamed - work.streamed for sizes in (alone, both)]
    queries = both.N * both.H * both.K
    assert queries + both.outputs < backward[1] - backward[0] < 1.05 * (queries + both.outputs)  # read once more
    outside = applying.count(both, False)[0].streamed
    assert outside == 2 * both.outputs + queries


@needs_triton
@pytest.mark.parametrize("case", ["several tiles", "image"])
@pytest.mark.parametrize("name", KERNELS)
def test_small_tiles_meet_where_they_should(name, case, run, device):
    errors = run(kernel_runs.compare, name, CASES[case], torch.float32, device.type, rows=16, programs=7)
    check(errors, torch.float32)


@needs_triton
def test_a_scope_of_several_tiles(run, device):
    options = {"size": (70,), "scope": (139,), "heads": 2, "batch": 1}
    check(run(kernel_runs.compare, "triton_weights", options, torch.float32, device.type), torch.float32)


@needs_triton
@pytest.mark.parametrize("case", CAUSAL_IMAGE)
@pytest.mark.parametrize("name", KERNELS)
def test_two_runs_are_equal_bit_for_bit(name, case, run, device):
    options = CASES[case] | {"content": case != "causal"}
    assert run(kernel_runs.twice, name, options, torch.float32, device.type) == []


@needs_triton
@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("case", ["odd length", "image"])
@pytest.mark.parametrize("name", KERNELS)
def test_products_are_counted(name, case, content, run, device):
    """Of whole tiles, so at the ends of rows there are fewer."""
    if device.type == "cuda":
        pytest.skip("the interpreter counts them")
    counted, done = run(kernel_runs.products, name, CASES[case] | {"content": content})
    for predicted, found in zip(counted, done, strict=True):
        assert 0.95 * found <= predicted <= 2 * found


def problem(size=(9,), scope=(3,), dtype=torch.float32, **options):
    inputs = make(size, scope, dtype=dtype, content=False, **options)
    return Problem.of(inputs.query, None, inputs.value, inputs.embedding)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        *((name, {"dtype": torch.float64}, "not in torch.float64") for name in KERNELS),
        *((name, {"dim_key": 65}, "k up to 64 and v up to 128, not 65 and 5") for name in KERNELS),
        *((name, {"dim_value": 129}, "k up to 64 and v up to 128, not 4 and 129") for name in KERNELS),
        ("triton_lambdas", {"size": (80,), "scope": (65,)}, "at most 64 offsets in a row, not 65"),
    ],
)
def test_where_they_do_not_apply_they_say_why(name, options, reason):
    found = problem(**options)
    assert reason in REGISTRY[name].supports(found.sizes, torch.device("cuda"), found.dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_they_are_for_gpus(name, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = problem()
    where = found.sizes, torch.device("cpu"), found.dtype
    assert REGISTRY[name].supports(*where) == "it runs on CUDA devices, not on cpu"
    inputs = make((9,), (3,), dtype=torch.float32)
    with pytest.raises(ValueError, match=f"algorithm='{name}': it runs on CUDA devices, not on cpu; use algorithm="):
        LF.lambda_layer(inputs.query, inputs.key, inputs.value, inputs.embedding, algorithm=name)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("change", [{"X": 2**30, "H": 1}, {"X": 2**29, "H": 4}, {"U": 2**20, "K": 64, "RX": 63}])
def test_what_int32_does_not_count_is_refused(name, change):
    found = problem()
    sizes = found.sizes._replace(**change)
    assert "2^31 queries in a row" in REGISTRY[name].supports(sizes, torch.device("cuda"), found.dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_without_triton_they_say_what_to_install(name, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    launching.missing.cache_clear()
    found = problem()
    try:
        reason = REGISTRY[name].supports(found.sizes, torch.device("cpu"), found.dtype)
    finally:
        launching.missing.cache_clear()
    assert reason == "Triton is not installed; run pip install triton"


def test_auto_does_not_take_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(launching, "missing", lambda *where: None)
    inputs = make((16,), (5,), content=False, dtype=torch.float32)
    plan = LF.plan(inputs.query, None, inputs.value, inputs.embedding)
    assert {name for name, _ in plan.unused} == set(KERNELS)
    assert not {candidate.name for candidate in plan.candidates} & set(KERNELS)
    assert inputs.run("auto").shape == inputs.grad.shape


def test_pairs_are_those_of_the_definition():
    for length, scope, origin in [(7, 5, 2), (7, 1, 0), (7, 7, 6), (7, 13, 6), (1, 1, 0), (9, 4, 3)]:
        pairs = sum(0 <= m - n + origin < scope for n in range(length) for m in range(length))
        assert launching.pairs(length, scope, origin) == pairs


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 64), (8192, 16384)])
@pytest.mark.parametrize("heads", [1, 3, 4, 64, 100])
def test_tiles_hold_what_they_must(size, heads):
    for scope in (1, 23, 64, 1001):
        found = problem((9, 9), (3, 3)).sizes._replace(Y=size[0], X=size[1], H=heads, RX=scope, K=3, V=50)
        for dim_key, dtype in ((3, torch.float32), (33, torch.float32), (33, torch.bfloat16)):
            t = triton_weights.tiles(found._replace(K=dim_key), dtype)
            most = max((first + t.rows - 1) // heads - first // heads + 1 for first in range(0, heads * t.rows, t.rows))
            assert min(most, size[1]) <= t.span
            assert t.columns + t.span - 1 <= t.offsets
        t = triton_lambdas.tiles(found)
        assert t.block * t.keys == triton_lambdas.ROWS
        assert 16 <= t.block * t.heads <= triton_lambdas.ROWS
