"""Streaming equals the parallel form, in pieces of any lengths, in memory that does not grow."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import make

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
