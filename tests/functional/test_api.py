"""Every algorithm against the definition, forward and backward, and the properties that no reference is needed for."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import CASES, EVERYWHERE, make, relative

from lambda_seq import functional as LF

FAST = [name for name in EVERYWHERE if name not in ("auto", "naive")]
properties = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def applicable(algorithms):
    """(case, algorithm): without a position lambda there is nothing to choose."""
    return [
        pytest.param(case, algorithm, id=f"{case}-{algorithm}")
        for case, options in CASES.items()
        for algorithm in (algorithms if options["scope"] else ["auto"])
    ]


@pytest.mark.parametrize(("case", "algorithm"), applicable([*FAST, "auto"]))
def test_equals_the_definition_forward_and_backward(case, algorithm, device):
    inputs = make(**CASES[case], device=device)
    expected = inputs.run_with_gradients("naive")
    found = inputs.run_with_gradients(algorithm)
    assert relative(found["output"], expected["output"]) < 1e-10
    for name in expected:
        error = (found[name] - expected[name]).abs().max()
        assert error < 1e-9 * max(1.0, expected[name].abs().max().item()), name


@pytest.mark.parametrize(("case", "algorithm"), applicable(FAST))
def test_float32_is_exact_to_rounding(case, algorithm, device):
    expected = make(**CASES[case], device=device).run_with_gradients("naive")
    torch.manual_seed(2021)
    found = make(**CASES[case], dtype=torch.float32, device=device).run_with_gradients(algorithm)
    for name in expected:
        assert found[name].dtype == torch.float32
        # The inputs are rounded too, so keys of size 30 differ by 30 · 2^-24 in the exponent.
        bound = 1e-5 * CASES[case].get("scale", 1.0)
        # Of one position, the gradient of the key is zero: what cancels has a size of 1.
        size = max(expected[name].abs().max().item(), 0.1)
        assert (found[name].double() - expected[name]).abs().max() < bound * size, name


@pytest.mark.parametrize("positions", [2**20, pytest.param(2**22 + 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_a_million_keys_are_summed_to_rounding(positions, dtype, key_norm):
    """Values of one sign, whose sum grows until an addend is no more than its rounding; forward and backward."""
    tensors = [torch.randn(1, 1, positions, size).to(dtype) for size in (2, 2, 3)]
    tensors[2] += 1
    grad = torch.randn(1, 1, positions, 3).to(dtype) + 1

    def run(inputs):
        inputs = [tensor.requires_grad_() for tensor in inputs]
        output = LF.lambda_layer(*inputs, None, key_norm=key_norm)
        return output.detach(), *torch.autograd.grad(output, inputs, grad.to(output.dtype))

    bound = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps  # one rounding of the result
    for found, expected in zip(run(tensors), run([tensor.detach().double() for tensor in tensors]), strict=True):
        assert (found.double() - expected).norm() < bound * expected.norm()


@pytest.mark.parametrize("sizes", [(1, 1), (8, 1), (1, 8)])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_a_million_like_positions_are_summed_to_rounding(sizes, key_norm):
    """Thin products, which libraries add up one position after another, of addends that all err to one side."""
    query, key = (
        torch.ones(1, 1, 1, sizes[0]).expand(-1, -1, 1_000_003, -1),
        torch.full((1, 1, 1_000_003, sizes[0]), 0.1),
    )
    value = torch.full((1, 1, 1_000_003, sizes[1]), 0.1)
    found, expected = (
        LF.lambda_layer(*(x.to(dtype) for x in (query, key, value)), None, key_norm=key_norm)[:, :, 0].double()
        for dtype in (torch.float32, torch.float64)
    )
    assert (found - expected).norm() < 1e-5 * expected.norm()


QUIET = {
    "half": lambda x: x[..., 300:, :].mul_(1e-4),
    "a little": lambda x: x[..., 300:, :].mul_(0.03),
    "one loud position": lambda x: x[..., 7, :].mul_(1e4),
    "silence between": lambda x: (x[..., 200:300, :].zero_(), x[..., 300:, :].mul_(1e-4)),
}


@pytest.mark.parametrize("algorithm", FAST)
@pytest.mark.parametrize("case", QUIET)
@pytest.mark.parametrize("causal", [False, True])
def test_a_quiet_part_is_as_exact_as_a_loud_one(case, causal, algorithm):
    """Of values and of gradients, where an embedding of local scope does not reach from one to the other."""
    query, value, grad = torch.randn(1, 2, 700, 3), torch.randn(1, 1, 700, 4), torch.randn(1, 2, 700, 4)
    embedding = torch.randn(1, 3, 21)
    QUIET[case](value)
    QUIET[case](grad)

    def run(*tensors):
        tensors = [tensor.requires_grad_() for tensor in tensors]
        output = LF.lambda_layer(tensors[0], None, *tensors[1:], causal=causal, algorithm=algorithm)
        return output.detach(), *torch.autograd.grad(output, tensors[:2], grad.to(output.dtype))

    found = run(query, value, embedding)
    expected = run(query.detach().double(), value.detach().double(), embedding.detach().double())
    for ours, exact in zip(found, expected, strict=True):
        for part in (slice(0, 250), slice(330, None), slice(600, None)):
            assert (ours.double() - exact)[:, :, part].norm() < 1e-5 * exact[:, :, part].norm()


@pytest.mark.slow
@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_a_million_keys_are_scanned_to_rounding(key_norm, alike):
    query, key, value = (torch.randn(1, 1, 2**20, size) for size in (2, 2, 3))
    value += 1
    if alike:  # roundings of one sign add up
        key, value = torch.full_like(key, 0.3), torch.full_like(value, 0.7)
    found = LF.lambda_layer(query, key, value, None, causal=True, key_norm=key_norm).double()
    expected = LF.lambda_layer(query.double(), key.double(), value.double(), None, causal=True, key_norm=key_norm)
    for part in (slice(None), slice(-1000, None)):
        assert (found - expected)[:, :, part].norm() < 1e-5 * expected[:, :, part].norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("algorithm", [*FAST, "auto"])
@pytest.mark.parametrize(
    "case", ["masked", "global", "causal", "longer than one chunk of the scan", "image", "intra-depth"]
)
def test_half_precision_is_within_twice_the_error_of_the_definition(case, algorithm, dtype, device):
    half = make(**CASES[case], dtype=dtype, device=device)
    exact = make(**CASES[case], device=device)
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
def test_gradcheck(case, algorithm, device):
    inputs = make(**case, heads=2, dim_key=2, dim_value=2, device=device)

    def function(query, key, value, embedding):
        inputs.query, inputs.key, inputs.value, inputs.embedding = query, key, value, embedding
        return inputs.run(algorithm)

    assert torch.autograd.gradcheck(function, (inputs.query, inputs.key, inputs.value, inputs.embedding))


@pytest.mark.parametrize("algorithm", [*FAST, "naive"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_a_row_without_real_positions_gives_zeros(algorithm, causal, key_norm, device):
    inputs = make((9,), (3,), hidden=0.3, causal=causal, key_norm=key_norm, device=device)
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
def test_translation_equivariance_away_from_the_border(algorithm, shift, scope, seed, device):
    torch.manual_seed(seed)
    inputs = make((40,), (scope,), content=False, device=device)
    margin = scope // 2
    output = inputs.run(algorithm)
    inputs.query, inputs.value = inputs.query.roll(shift, 2), inputs.value.roll(shift, 2)
    moved = inputs.run(algorithm)
    inside = slice(shift + margin, 40 - margin)
    torch.testing.assert_close(moved[:, :, inside], output.roll(shift, 2)[:, :, inside], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(length=st.integers(1, 30), extra=st.integers(1, 20), causal=st.booleans(), seed=st.integers(0, 2**16))
def test_padding_changes_nothing(algorithm, length, extra, causal, seed, device):
    torch.manual_seed(seed)
    padded = make((length + extra,), (5,), causal=causal, device=device)
    alone = make((length,), (5,), causal=causal, device=device)
    padded.mask = torch.zeros(2, length + extra, dtype=torch.bool, device=device)
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


@pytest.mark.parametrize("what", [float("nan"), float("inf")])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("algorithm", ["naive", *FAST])
def test_what_stands_at_padding_does_not_matter_even_nan(algorithm, causal, what, device):
    """Neither to outputs nor to a gradient, which at padding is zero."""
    inputs = make((12,), (5,), causal=causal, device=device)
    inputs.mask = torch.arange(12, device=device) < torch.tensor([[7], [12]], device=device)
    inputs.grad = inputs.grad * inputs.mask[:, None, :, None]
    expected = inputs.run_with_gradients(algorithm)
    for name in ("query", "key", "value"):
        given = getattr(inputs, name).detach().masked_fill(~inputs.mask[:, None, :, None], what)
        setattr(inputs, name, given.requires_grad_())
    for name, found in inputs.run_with_gradients(algorithm).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(place=st.integers(0, 39), scope=st.sampled_from([1, 2, 9, 40]), seed=st.integers(0, 2**16))
def test_causal_output_does_not_see_what_comes_later(algorithm, place, scope, seed, device):
    torch.manual_seed(seed)
    inputs = make((40,), (scope,), causal=True, device=device)
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
def test_a_sequence_is_an_image_of_height_one(algorithm, scope, intra, seed, device):
    torch.manual_seed(seed)
    inputs = make((23,), (scope,), intra=intra, hidden=0.2, device=device)
    line = inputs.run(algorithm)
    inputs.query, inputs.key, inputs.value, inputs.embedding = (
        tensor.unsqueeze(2) for tensor in (inputs.query, inputs.key, inputs.value, inputs.embedding)
    )
    inputs.mask = inputs.mask.unsqueeze(1)
    torch.testing.assert_close(inputs.run(algorithm).squeeze(2), line, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("algorithm", FAST)
@properties
@given(order=st.permutations(range(4)), seed=st.integers(0, 2**16))
def test_permuting_the_batch_permutes_the_output(algorithm, order, seed, device):
    torch.manual_seed(seed)
    inputs = make((6, 5), (3, 3), batch=4, hidden=0.2, device=device)
    output = inputs.run(algorithm)
    order = list(order)
    inputs.query, inputs.key, inputs.value, inputs.mask = (
        tensor[order] for tensor in (inputs.query, inputs.key, inputs.value, inputs.mask)
    )
    torch.testing.assert_close(inputs.run(algorithm), output[order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("algorithm", FAST)
def test_one_input_moves_the_outputs_within_the_scope_and_no_others(algorithm, device):
    inputs = make((15, 17), (5, 7), batch=1, content=False, device=device)
    before = inputs.run(algorithm)
    inputs.value = inputs.value.detach().clone()
    inputs.value[0, 0, 7, 9] += 1
    moved = (inputs.run(algorithm) - before).abs().amax((0, 1, 4)) > 1e-9
    expected = torch.zeros(15, 17, dtype=torch.bool, device=device)
    expected[5:10, 6:13] = True
    assert (moved == expected).all()


@pytest.mark.parametrize("algorithm", FAST)
def test_empty_batch(algorithm, device):
    inputs = make((9,), (3,), batch=0, device=device)
    assert inputs.run(algorithm).shape == (0, 3, 9, 5)


@pytest.mark.parametrize("algorithm", FAST)
def test_second_derivatives_are_refused_not_wrong(algorithm, device):
    inputs = make((9,), (3,), content=False, device=device)
    (gradient,) = torch.autograd.grad(inputs.run(algorithm).sum(), inputs.query, create_graph=True)
    with pytest.raises(RuntimeError, match="use algorithm='naive' for second derivatives"):
        torch.autograd.grad(gradient.square().sum(), inputs.value)


@pytest.mark.parametrize("algorithm", FAST)
def test_autocast_does_not_reach_into_the_algorithms(algorithm, device):
    inputs = make((33,), (5,), dtype=torch.float32, device=device)
    expected = inputs.run_with_gradients(algorithm)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = inputs.run(algorithm)
    tensors = (inputs.query, inputs.key, inputs.value, inputs.embedding)
    gradients = torch.autograd.grad(output, tensors, inputs.grad)
    found = {"output": output, **dict(zip(("query", "key", "value", "embedding"), gradients, strict=True))}
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)
