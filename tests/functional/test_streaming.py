"""Streaming equals the parallel form, in pieces of any lengths, in memory that does not grow."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import make

from lambda_seq import LambdaLayer1d
from lambda_seq import functional as LF

properties = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def in_pieces(inputs, lengths):
    with torch.no_grad():
        state = LF.StreamState.empty(inputs.key, inputs.value)
        outputs, start = [], 0
        for length in lengths:
            part = slice(start, start + length)
            key = None if inputs.key is None else inputs.key[:, :, part]
            output, state = LF.stream(
                inputs.query[:, :, part],
                key,
                inputs.value[:, :, part],
                inputs.embedding,
                state,
                key_norm=inputs.options["key_norm"],
            )
            outputs.append(output)
            start += length
    return torch.cat(outputs, 2), state


@properties
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    scope=st.sampled_from([1, 2, 7, 200]),
    content=st.booleans(),
    intra=st.integers(1, 2),
    key_norm=st.sampled_from(LF.KEY_NORMS),
    scale=st.sampled_from([1.0, 50.0, 2000.0]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_parallel_form(lengths, scope, content, intra, key_norm, scale, seed):
    torch.manual_seed(seed)
    inputs = make((sum(lengths),), (scope,), causal=True, content=content, intra=intra, key_norm=key_norm, scale=scale)
    found, state = in_pieces(inputs, lengths)
    expected = inputs.run("naive").detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    assert state.seen == sum(lengths)


def test_content_only():
    inputs = make((50,), None, causal=True)
    torch.testing.assert_close(in_pieces(inputs, [13, 37])[0], inputs.run("naive").detach())


def test_state_does_not_grow_with_the_context():
    def numbers(length):
        state = in_pieces(make((length,), (9,), causal=True), [length])[1]
        parts = (state.values, state.content.sums, state.content.norm, state.content.top)
        return sum(part.untyped_storage().nbytes() for part in parts)

    assert numbers(400) == numbers(50)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    inputs = make((40,), (7,), causal=True, dtype=dtype)
    found, _ = in_pieces(inputs, [1, 20, 1, 18])
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), inputs.run("auto").detach().float(), rtol=0.05, atol=0.05)


def random_exponentials(intra=1, dim_key=4):
    scales = 200 ** torch.rand(4, dtype=torch.float64)
    coefficients = torch.randn(intra, dim_key, 6, dtype=torch.float64)
    return LF.Exponentials(1 / scales, 3 * torch.rand(2, dtype=torch.float64), coefficients)


@properties
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    content=st.booleans(),
    intra=st.integers(1, 2),
    seed=st.integers(0, 2**16),
)
def test_exponentials_equal_the_parallel_form(lengths, content, intra, seed):
    torch.manual_seed(seed)
    inputs = make((sum(lengths),), (1,), causal=True, content=content, intra=intra)
    given_terms = random_exponentials(intra)
    inputs.embedding = given_terms.kernel(sum(lengths))
    expected = inputs.run("naive").detach()
    inputs.embedding = given_terms
    found, state = in_pieces(inputs, lengths)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    assert state.seen == sum(lengths)
    assert state.values.shape[2] == 0


def test_exponentials_stream_in_float32_as_in_float64():
    """Slow terms, many single steps: the sums are kept in float64, where z^n does not drift."""
    query, value = torch.randn(1, 1, 2000, 2), torch.randn(1, 1, 2000, 2)
    embedding = LF.Exponentials(torch.tensor([1e-6, 1e-4, 1e-5]), torch.tensor([1e-4]), torch.ones(1, 2, 4))
    kernel = LF.Exponentials(*(part.double() for part in vars(embedding).values())).kernel(2000)
    expected = LF.lambda_layer(query.double(), None, value.double(), kernel, causal=True)
    state, outputs = LF.StreamState.empty(None, value, embedding), []
    for t in range(2000):
        part = slice(t, t + 1)
        output, state = LF.stream(query[:, :, part], None, value[:, :, part], embedding, state)
        outputs.append(output)
    found = torch.cat(outputs, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_exponentials_take_constant_memory_in_long_pieces():
    """No tensor of a step is larger than a few times its inputs."""
    largest = 0

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            largest = max(largest, result.numel() if isinstance(result, torch.Tensor) else 0)
            return result

    inputs = make((20000,), (1,), causal=True, content=False, batch=1)
    inputs.embedding = random_exponentials()
    state = in_pieces(inputs, [10])[1]
    with torch.no_grad(), Largest():
        LF.stream(inputs.query, None, inputs.value, inputs.embedding, state)
    assert largest <= 2 * max(
        inputs.query.numel(), inputs.value.numel(), inputs.embedding.coefficients[0, :, 0].numel() * 20480
    )


def test_gradients_flow_through_a_stream():
    inputs = make((9,), (1,), causal=True, content=False, batch=1)
    terms = random_exponentials()
    parts = [part.requires_grad_() for part in vars(terms).values()]

    def streamed(*parts):
        state, outputs = LF.StreamState.empty(None, inputs.value), []
        for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
            output, state = LF.stream(
                inputs.query[:, :, part], None, inputs.value[:, :, part], LF.Exponentials(*parts), state
            )
            outputs.append(output)
        return torch.cat(outputs, 2)

    weights = torch.randn(1, 3, 9, 5, dtype=torch.float64)
    found = torch.autograd.grad((streamed(*parts) * weights).sum(), parts)
    whole = LF.lambda_layer(inputs.query, None, inputs.value, terms.kernel(9), causal=True, algorithm="naive")
    expected = torch.autograd.grad((whole * weights).sum(), parts)
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-9)


def test_half_precision_exponentials():
    inputs = make((40,), (1,), causal=True, dtype=torch.bfloat16)
    terms = random_exponentials()
    inputs.embedding = terms
    found, _ = in_pieces(inputs, [1, 20, 1, 18])
    assert found.dtype == torch.bfloat16
    inputs.embedding = terms.kernel(40).bfloat16()
    expected = inputs.run("auto").detach().float()
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


def test_a_wider_embedding_may_come_in_parts():
    """With `reach`, a piece gives only the offsets that positions so far have."""
    inputs = make((20,), (20,), causal=True, content=False)
    expected = inputs.run("naive").detach()
    state, outputs = LF.StreamState.empty(None, inputs.value), []
    with torch.no_grad():
        for t in range(20):
            part = slice(t, t + 1)
            embedding = inputs.embedding[..., 19 - t :]
            output, state = LF.stream(
                inputs.query[:, :, part], None, inputs.value[:, :, part], embedding, state, reach=19
            )
            outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 2), expected, rtol=1e-9, atol=1e-9)


def test_states_of_another_embedding():
    inputs = make((8,), (5,), causal=True, content=False)
    state = in_pieces(inputs, [8])[1]
    args = (inputs.query, None, inputs.value)
    with pytest.raises(ValueError, match=r"embedding reaches 6 positions back but the state has kept 4 of 8"):
        LF.stream(*args, torch.zeros(1, 4, 7, dtype=torch.float64), state)
    with pytest.raises(ValueError, match=r"sum of exponentials but the state has no sums of its 8 positions"):
        LF.stream(*args, random_exponentials(), state)


def streamed(inputs, embedding, lengths, key_norm="softmax"):
    """The stream's output, and all of its states."""
    states, outputs = [LF.StreamState.empty(inputs.key, inputs.value, embedding)], []
    tensors = (inputs.query, inputs.key, inputs.value)
    with torch.no_grad():
        for pieces in zip(*(tensor.split(lengths, 2) for tensor in tensors), strict=True):
            output, state = LF.stream(*pieces, embedding, states[-1], key_norm=key_norm)
            outputs.append(output)
            states.append(state)
    return torch.cat(outputs, 2), states


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["table", "exponentials"])
def test_autocast_does_not_reach_into_a_stream(kind, low, key_norm):
    inputs = make((30,), (7,), causal=True, dtype=torch.float32, key_norm=key_norm)
    embedding = inputs.embedding
    if kind == "exponentials":
        embedding = LF.Exponentials(*(part.float() for part in vars(random_exponentials()).values()))
    expected, _ = streamed(inputs, embedding, [1, 20, 1, 1, 7], key_norm)
    with torch.autocast("cpu", dtype=low):
        found, states = streamed(inputs, embedding, [1, 20, 1, 1, 7], key_norm)
    assert torch.equal(found, expected)
    assert all(leaf.dtype != low for state in states for leaf in torch.utils._pytree.tree_leaves(state))


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"scope": 5},
        {"scope": None, "max_length": 64},
        {"scope": None, "position": "exponential"},
        {"position": False},
        {"scope": 9, "content": False, "dim_intra": 2},
    ],
)
def test_steps_under_autocast_are_as_exact_as_forward(options, key_norm, low):
    layer = LambdaLayer1d(16, heads=2, causal=True, norm="rms", key_norm=key_norm, **options).eval()
    x = torch.randn(2, 40, 16)
    exact = copy.deepcopy(layer).double()(x.double())
    with torch.no_grad(), torch.autocast("cpu", dtype=low):
        forward = layer(x)
        state, outputs = layer.init_state(2), []
        dtypes = [leaf.dtype for leaf in torch.utils._pytree.tree_leaves(state)]
        for part in x.split([1, 1, 20, 1, 17], 1):
            output, state = layer.step(part, state)
            outputs.append(output)
            assert [leaf.dtype for leaf in torch.utils._pytree.tree_leaves(state)] == dtypes
    found = torch.cat(outputs, 1)
    assert found.dtype == forward.dtype
    error = (forward.double() - exact).abs().max()
    assert (found.double() - exact).abs().max() <= 1.5 * error


def test_a_piece_of_no_positions_changes_nothing():
    inputs = make((8,), (5,), causal=True)
    _, state = in_pieces(inputs, [8])
    empty = (tensor[:, :, :0] for tensor in (inputs.query, inputs.key, inputs.value))
    output, after = LF.stream(*empty, inputs.embedding, state)
    assert output.shape == (2, 3, 0, 5)
    assert after is state


def other(state, **changes):
    return dataclasses.replace(state, **changes)


STATES = {
    "none": (lambda state: None, TypeError, r"state is NoneType: .*begin with init_state\(batch_size\) .*\.empty\(key"),
    "tuple": (lambda state: (state,), TypeError, "state is tuple: expected a StreamState"),
    "batch": (
        lambda state: LF.StreamState.empty(torch.zeros(3, 1, 0, 4).double(), torch.zeros(3, 1, 0, 5).double()),
        ValueError,
        r"state.values has shape \(3, 1, 0, 5\) but the inputs ask for \(2, 1, 0, 5\): go on with what",
    ),
    "depth of values": (
        lambda state: LF.StreamState.empty(torch.zeros(2, 1, 0, 4).double(), torch.zeros(2, 1, 0, 6).double()),
        ValueError,
        r"state.values has shape \(2, 1, 0, 6\) but the inputs ask for \(2, 1, 0, 5\)",
    ),
    "depth of keys": (
        lambda state: LF.StreamState.empty(torch.zeros(2, 1, 0, 3).double(), torch.zeros(2, 1, 0, 5).double()),
        ValueError,
        r"state.content.sums has shape \(2, 1, 3, 5\) but the inputs ask for \(2, 1, 4, 5\)",
    ),
    "no content": (lambda state: other(state, content=None), ValueError, "state has no content part but key is given"),
    "dtype": (
        lambda state: torch.utils._pytree.tree_map(lambda x: x.float(), state),
        TypeError,
        r"state.values is torch.float32, which cannot hold inputs of torch.float64: convert them",
    ),
    "device": (
        lambda state: torch.utils._pytree.tree_map(lambda x: x.to("meta"), state),
        ValueError,
        r"state.values is on meta but the inputs on cpu: expected one device; .*tree_map moves a state",
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_states_that_do_not_fit(case):
    change, error, message = STATES[case]
    inputs = make((8,), (5,), causal=True)
    state = in_pieces(inputs, [8])[1]
    with pytest.raises(error, match=message):
        LF.stream(inputs.query, inputs.key, inputs.value, inputs.embedding, change(state))


def test_keys_for_a_state_without_content():
    inputs = make((8,), (5,), causal=True)
    state = in_pieces(inputs, [8])[1]
    with pytest.raises(ValueError, match="state has a content part but key is None"):
        LF.stream(inputs.query, None, inputs.value, inputs.embedding, state)


def test_sums_of_other_terms():
    inputs = make((8,), (1,), causal=True, content=False)
    state = LF.StreamState.empty(None, inputs.value, random_exponentials())
    fewer = LF.Exponentials(torch.rand(3).double(), torch.rand(1).double(), torch.rand(1, 4, 4).double())
    with pytest.raises(ValueError, match=r"state.sums has shape \(2, 1, 6, 5\) but the inputs ask for \(2, 1, 4, 5\)"):
        LF.stream(inputs.query, None, inputs.value, fewer, state)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("query", [[1.0]], r"query is list: .*use torch.as_tensor\(query"),
        ("value", torch.zeros(2, 1, 8, 5).int(), r"value is torch.int32: .*use value.float\(\)"),
        ("key", torch.zeros(2, 1, 8, 4, dtype=torch.complex128), "key is torch.complex128: expected real numbers"),
        ("query", torch.zeros(2, 3, 4, 8, 4).double(), "value has shape .*: expected rank 5"),
        ("embedding", torch.zeros(1, 3, 5).double(), r"embedding has shape \(1, 3, 5\): expected \(1, 4, 5\)"),
    ],
)
def test_arguments_of_a_stream(name, given, message):
    inputs = make((8,), (5,), causal=True)
    state = LF.StreamState.empty(inputs.key, inputs.value)
    tensors = {part: getattr(inputs, part) for part in ("query", "key", "value", "embedding")}
    with pytest.raises((TypeError, ValueError), match=message):
        LF.stream(**(tensors | {name: given}), state=state)


def test_arguments_of_an_empty_state():
    with pytest.raises(TypeError, match=r"value is torch.int64: .*use value.float\(\)"):
        LF.StreamState.empty(None, torch.zeros(2, 1, 0, 5).long())
    with pytest.raises(ValueError, match=r"key has shape \(2, 4\), of rank 2: expected \(B, U, N, K\)"):
        LF.StreamState.empty(torch.zeros(2, 4), torch.zeros(2, 1, 0, 5))
