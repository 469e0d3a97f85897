"""Every algorithm against the definition, forward and backward, and the properties that no reference is needed for."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import make

from lambda_seq import functional as LF

FAST = [name for name in LF.ALGORITHMS if name not in ("auto", "naive")]
properties = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

CASES = {
    "odd length": {"size": (37,), "scope": (7,)},
    "one block and a bit": {"size": (33,), "scope": (31,), "dim_value": 3},
    "intra-depth": {"size": (21,), "scope": (5,), "intra": 3},
    "wider than the input": {"size": (11,), "scope": (41,)},
    "global": {"size": (26,), "scope": (51,), "batch": 3},
    "length 1, batch 1": {"size": (1,), "scope": (3,), "batch": 1},
    "scope 1": {"size": (9,), "scope": (1,)},
    "masked": {"size": (29,), "scope": (9,), "hidden": 0.4},
    "masked l2": {"size": (13,), "scope": (3,), "hidden": 0.4, "key_norm": "l2"},
    "not normalised": {"size": (13,), "scope": (3,), "key_norm": "none"},
    "causal": {"size": (27,), "scope": (6,), "causal": True},
    "causal, wider than the input, masked": {"size": (15,), "scope": (20,), "causal": True, "hidden": 0.4},
    "causal, intra-depth": {"size": (15,), "scope": (15,), "causal": True, "intra": 2},
    "causal l2": {"size": (15,), "scope": (3,), "causal": True, "key_norm": "l2", "hidden": 0.3},
    "causal, not normalised": {"size": (15,), "scope": (3,), "causal": True, "key_norm": "none"},
    "longer than one chunk of the scan": {"size": (300,), "scope": (3,), "causal": True, "hidden": 0.2},
    "image": {"size": (9, 7), "scope": (3, 5)},
    "image, intra-depth, masked": {"size": (6, 11), "scope": (5, 3), "intra": 2, "hidden": 0.4},
    "image, wider than the input": {"size": (4, 5), "scope": (23, 23), "batch": 3},
    "image, global": {"size": (5, 6), "scope": (9, 11)},
    "image of one column": {"size": (12, 1), "scope": (5, 3)},
    "content only": {"size": (19,), "scope": None},
    "content only, causal": {"size": (140,), "scope": None, "causal": True, "scale": 30.0},
    "position only": {"size": (19,), "scope": (5,), "content": False, "hidden": 0.3},
}


def relative(found, expected):
    return ((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-300)).item()


def applicable(algorithms):
    """(case, algorithm): without a position lambda there is nothing to choose."""
    return [
        pytest.param(case, algorithm, id=f"{case}-{algorithm}")
        for case, options in CASES.items()
        for algorithm in (algorithms if options["scope"] else ["auto"])
    ]


@pytest.mark.parametrize(("case", "algorithm"), applicable([*FAST, "auto"]))
def test_equals_the_definition_forward_and_backward(case, algorithm):
    inputs = make(**CASES[case])
    expected = inputs.run_with_gradients("naive")
    found = inputs.run_with_gradients(algorithm)
    assert relative(found["output"], expected["output"]) < 1e-10
    for name in expected:
        error = (found[name] - expected[name]).abs().max()
        assert error < 1e-9 * max(1.0, expected[name].abs().max().item()), name


@pytest.mark.parametrize(("case", "algorithm"), applicable(FAST))
def test_float32_is_exact_to_rounding(case, algorithm):
    expected = make(**CASES[case]).run_with_gradients("naive")
    torch.manual_seed(2021)
    found = make(**CASES[case], dtype=torch.float32).run_with_gradients(algorithm)
    for name in expected:
        assert found[name].dtype == torch.float32
        # The inputs are rounded too, so keys of size 30 differ by 30 · 2^-24 in the exponent.
        assert relative(found[name], expected[name]) < 1e-5 * CASES[case].get("scale", 1.0), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("algorithm", [*FAST, "auto"])
@pytest.mark.parametrize(
    "case", ["masked", "global", "causal", "longer than one chunk of the scan", "image", "intra-depth"]
)
def test_half_precision_is_within_twice_the_error_of_the_definition(case, algorithm, dtype):
    half = make(**CASES[case], dtype=dtype)
    exact = make(**CASES[case])
    for name in ("query", "key", "value", "embedding", "grad"):  # the same numbers, in float64
        setattr(exact, name, getattr(half, name).detach().double().requires_grad_())
    exact.mask = half.mask
    exact, plain, found = (
        exact.run_with_gradients("naive"),
        half.run_with_gradients("naive"),
        half.run_with_gradients(algorithm),
    )
    for name in exact:
        assert found[name].dtype == dtype
        # One rounding of the result cannot be avoided.
        floor = torch.finfo(dtype).eps
        assert relative(found[name], exact[name]) <= 2 * max(relative(plain[name], exact[name]), floor), name


@pytest.mark.parametrize("algorithm", FAST)
@pytest.mark.parametrize(
    "case",
    [
        {"size": (5,), "scope": (3,), "intra": 2},
        {"size": (6,), "scope": (4,), "causal": True, "hidden": 0.3},
        {"size": (2, 3), "scope": (3, 3)},
        {"size": (1,), "scope": (5,), "batch": 1},
    ],
)
def test_gradcheck(case, algorithm):
    inputs = make(**case, heads=2, dim_key=2, dim_value=2)

    def function(query, key, value, embedding):
        inputs.query, inputs.key, inputs.value, inputs.embedding = query, key, value, embedding
        return inputs.run(algorithm)

    assert torch.autograd.gradcheck(function, (inputs.query, inputs.key, inputs.value, inputs.embedding))


@pytest.mark.parametrize("algorithm", [*FAST, "naive"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_a_row_without_real_positions_gives_zeros(algorithm, causal, key_norm):
    inputs = make((9,), (3,), hidden=0.3, causal=causal, key_norm=key_norm)
    inputs.mask[0] = False
    output = LF.lambda_layer(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.embedding,
        mask=inputs.mask,
        algorithm=algorithm,
        **inputs.options,
    )
    assert (output[0] == 0).all()
    assert output.isfinite().all()
    gradients = torch.autograd.grad(output.sum(), (inputs.query, inputs.key, inputs.value, inputs.embedding))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(shift=st.integers(1, 12), scope=st.sampled_from([1, 3, 7, 11]), seed=st.integers(0, 2**16))
def test_translation_equivariance_away_from_the_border(algorithm, shift, scope, seed):
    torch.manual_seed(seed)
    inputs = make((40,), (scope,), content=False)
    margin = scope // 2
    output = inputs.run(algorithm)
    inputs.query, inputs.value = inputs.query.roll(shift, 2), inputs.value.roll(shift, 2)
    moved = inputs.run(algorithm)
    inside = slice(shift + margin, 40 - margin)
    torch.testing.assert_close(moved[:, :, inside], output.roll(shift, 2)[:, :, inside], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(length=st.integers(1, 30), extra=st.integers(1, 20), causal=st.booleans(), seed=st.integers(0, 2**16))
def test_padding_changes_nothing(algorithm, length, extra, causal, seed):
    torch.manual_seed(seed)
    padded = make((length + extra,), (5,), causal=causal)
    alone = make((length,), (5,), causal=causal)
    padded.mask = torch.zeros(2, length + extra, dtype=torch.bool)
    padded.mask[:, :length] = True
    padded.grad = padded.grad * padded.mask[:, None, :, None]
    for name in ("query", "key", "value", "grad"):
        setattr(alone, name, getattr(padded, name)[:, :, :length].detach().requires_grad_())
    alone.embedding = padded.embedding
    found, expected = padded.run_with_gradients(algorithm), alone.run_with_gradients(algorithm)
    for name in ("output", "query", "key", "value"):
        torch.testing.assert_close(found[name][:, :, :length], expected[name], rtol=1e-9, atol=1e-9)
        assert (found[name][:, :, length:] == 0).all()
    torch.testing.assert_close(found["embedding"], expected["embedding"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(place=st.integers(0, 39), scope=st.sampled_from([1, 2, 9, 40]), seed=st.integers(0, 2**16))
def test_causal_output_does_not_see_what_comes_later(algorithm, place, scope, seed):
    torch.manual_seed(seed)
    inputs = make((40,), (scope,), causal=True)
    gradients = torch.autograd.grad(inputs.run(algorithm)[:, :, place].sum(), (inputs.key, inputs.value))
    for gradient in gradients:
        assert (gradient[:, :, place + 1 :].abs() < 1e-12).all()
    changed = inputs.value.detach().clone()
    changed[:, :, place + 1 :] += 100
    before = inputs.run(algorithm)[:, :, : place + 1]
    inputs.value = changed
    torch.testing.assert_close(inputs.run(algorithm)[:, :, : place + 1], before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(scope=st.sampled_from([1, 3, 9, 31]), intra=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_a_sequence_is_an_image_of_height_one(algorithm, scope, intra, seed):
    torch.manual_seed(seed)
    inputs = make((23,), (scope,), intra=intra, hidden=0.2)
    line = inputs.run(algorithm)
    inputs.query, inputs.key, inputs.value, inputs.embedding = (
        tensor.unsqueeze(2) for tensor in (inputs.query, inputs.key, inputs.value, inputs.embedding)
    )
    inputs.mask = inputs.mask.unsqueeze(1)
    torch.testing.assert_close(inputs.run(algorithm).squeeze(2), line, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(order=st.permutations(range(4)), seed=st.integers(0, 2**16))
def test_permuting_the_batch_permutes_the_output(algorithm, order, seed):
    torch.manual_seed(seed)
    inputs = make((6, 5), (3, 3), batch=4, hidden=0.2)
    output = inputs.run(algorithm)
    order = list(order)
    inputs.query, inputs.key, inputs.value, inputs.mask = (
        tensor[order] for tensor in (inputs.query, inputs.key, inputs.value, inputs.mask)
    )
    torch.testing.assert_close(inputs.run(algorithm), output[order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("algorithm", FAST)
def test_one_input_moves_the_outputs_within_the_scope_and_no_others(algorithm):
    inputs = make((15, 17), (5, 7), batch=1, content=False)
    before = inputs.run(algorithm)
    inputs.value = inputs.value.detach().clone()
    inputs.value[0, 0, 7, 9] += 1
    moved = (inputs.run(algorithm) - before).abs().amax((0, 1, 4)) > 1e-9
    expected = torch.zeros(15, 17, dtype=torch.bool)
    expected[5:10, 6:13] = True
    assert (moved == expected).all()


@pytest.mark.parametrize("algorithm", FAST)
def test_empty_batch(algorithm):
    inputs = make((9,), (3,), batch=0)
    assert inputs.run(algorithm).shape == (0, 3, 9, 5)


@pytest.mark.parametrize("algorithm", FAST)
def test_second_derivatives_are_refused_not_wrong(algorithm):
    inputs = make((9,), (3,), content=False)
    (gradient,) = torch.autograd.grad(inputs.run(algorithm).sum(), inputs.query, create_graph=True)
    with pytest.raises(RuntimeError, match="use algorithm='naive' for second derivatives"):
        torch.autograd.grad(gradient.square().sum(), inputs.value)


@pytest.mark.parametrize("algorithm", FAST)
def test_autocast_does_not_reach_into_the_algorithms(algorithm):
    inputs = make((33,), (5,), dtype=torch.float32)
    expected = inputs.run_with_gradients(algorithm)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = inputs.run(algorithm)
    tensors = (inputs.query, inputs.key, inputs.value, inputs.embedding)
    gradients = torch.autograd.grad(output, tensors, inputs.grad)
    found = {"output": output, **dict(zip(("query", "key", "value", "embedding"), gradients, strict=True))}
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)
