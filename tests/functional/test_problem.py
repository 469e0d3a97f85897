"""Bad input: an error that names the argument, the value and what would be right."""

import pytest
import torch
from problems import EVERYWHERE, make

from lambda_seq import functional as LF
from lambda_seq.functional.problem import Problem, clip, origin, sized, within


def call(inputs, **changes):
    arguments = {
        "query": inputs.query,
        "key": inputs.key,
        "value": inputs.value,
        "embedding": inputs.embedding,
        "mask": inputs.mask,
        **inputs.options,
    }
    return LF.lambda_layer(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"query": torch.zeros(2, 3, 9).double()},
            ValueError,
            r"query has shape \(2, 3, 9\), of rank 3: expected \(B, H, N, K\)",
        ),
        ({"query": [1.0]}, TypeError, "query is list: expected a torch.Tensor"),
        ({"query": torch.zeros(2, 3, 9, 4, dtype=torch.long)}, TypeError, r"query is torch.int64.*query.float\(\)"),
        ({"key": torch.zeros(2, 1, 9, 4)}, TypeError, r"key is torch.float32 but query is torch.float64.*key.to"),
        (
            {"key": torch.zeros(2, 1, 8, 4).double()},
            ValueError,
            r"key has shape \(2, 1, 8, 4\): expected \(2, 1, 9, 4\)",
        ),
        ({"value": torch.zeros(2, 1, 3, 3, 5).double()}, ValueError, "value has shape .* of rank 5: expected rank 4"),
        ({"value": torch.zeros(2, 1, 8, 5).double()}, ValueError, r"value has shape .*expected \(2, 1, 9, 5\)"),
        ({"embedding": torch.zeros(1, 4, 4).double()}, ValueError, "a scope of 4: expected an odd number"),
        ({"embedding": torch.zeros(1, 4, 3, 3).double()}, ValueError, r"embedding .* of rank 4: expected \(U, K, R\)"),
        ({"embedding": torch.zeros(2, 4, 3).double()}, ValueError, r"embedding has shape .*expected \(1, 4, 3\)"),
        ({"mask": torch.ones(2, 8, dtype=torch.bool)}, ValueError, r"mask has shape \(2, 8\): expected \(2, 9\)"),
        ({"mask": torch.ones(2, 9)}, TypeError, r"mask is torch.float32: expected a bool tensor.*mask.bool\(\)"),
        ({"key_norm": "sum"}, ValueError, "key_norm='sum': expected one of 'softmax', 'l2', 'none'"),
        ({"algorithm": "magic"}, ValueError, "algorithm='magic': expected one of 'auto', 'naive'"),
        ({"key": None, "embedding": None}, ValueError, "key and embedding are both None"),
    ],
)
def test_bad_sequence_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        call(make((9,), (3,)), **changes)


def test_causal_images_are_refused():
    with pytest.raises(ValueError, match="causal=True with query of shape"):
        call(make((3, 3), (3, 3)), causal=True)


@pytest.mark.parametrize("size", [(9,), (3, 3)])
def test_empty_channels_are_refused(size):
    with pytest.raises(ValueError, match="batch and positions may be empty; give every other dimension"):
        call(make(size, (3,) * len(size), dim_value=0))


NUMPY = pytest.importorskip("numpy").ones((2, 1, 9, 4))


@pytest.mark.parametrize("name", ["query", "key", "value", "embedding"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1.0]], r"{} is list: expected a torch.Tensor; use torch.as_tensor\({}, dtype=torch.float32\)"),
        (NUMPY, r"{} is ndarray: expected a torch.Tensor; use torch.as_tensor\({}, dtype=torch.float32\)"),
        ("words", r"{} is str: expected a torch.Tensor$"),
        (torch.zeros(2, 1, 9, 4).int(), r"{} is torch.int32: expected a floating point tensor; use {}.float\(\)"),
        (torch.zeros(2, 1, 9, 4).bool(), r"{} is torch.bool: expected a floating point tensor; use {}.float\(\)"),
        (
            torch.zeros(2, 1, 9, 4, dtype=torch.complex64),
            r"{} is torch.complex64: expected real numbers; .*torch.view_as_real\({}\).flatten\(-2\)",
        ),
        (torch.zeros(2, 1, 9, 4).to_sparse(), r"{} has layout torch.sparse_coo: .* use {}.to_dense\(\)"),
    ],
)
def test_what_is_no_tensor_of_real_numbers(name, given, message):
    inputs = make((9,), (3,))
    message = message.replace("{}", name)
    with pytest.raises(TypeError, match=message):
        call(inputs, **{name: given})
    with pytest.raises(TypeError, match=message):
        LF.plan(**({part: getattr(inputs, part) for part in ("query", "key", "value", "embedding")} | {name: given}))


@pytest.mark.parametrize("causal", ["yes", 1, 0, None, torch.tensor(True)])
def test_causal_is_a_bool(causal):
    with pytest.raises(TypeError, match=r"causal=.*: expected True or False"):
        call(make((9,), (3,)), causal=causal)


@pytest.mark.parametrize(
    ("mask", "remedy"),
    [
        (torch.ones(2, 9, dtype=torch.long), r"mask is torch.int64: .*use mask.bool\(\)"),
        ([[True] * 9] * 2, r"mask is list: .*use torch.as_tensor\(mask, dtype=torch.bool\)"),
        (NUMPY, r"mask is ndarray: .*use torch.as_tensor\(mask, dtype=torch.bool\)"),
    ],
)
def test_masks_are_bool_tensors(mask, remedy):
    with pytest.raises(TypeError, match=remedy):
        call(make((9,), (3,)), mask=mask)
    with pytest.raises(TypeError, match=remedy):
        LF.Packing.of(torch.zeros(2, 9, dtype=torch.long), mask)


@pytest.mark.parametrize("causal", [False, True])
def test_a_scope_without_offsets(causal):
    with pytest.raises(ValueError, match="a scope of 0: expected at least one offset"):
        call(make((9,), (3,)), embedding=torch.zeros(1, 4, 0).double(), causal=causal)


EMPTY = {
    "no positions": {"size": (0,), "scope": (3,)},
    "no positions, causal, masked": {"size": (0,), "scope": (4,), "causal": True, "hidden": 0.5},
    "no positions, content only": {"size": (0,), "scope": None, "key_norm": "l2"},
    "no rows": {"size": (0, 4), "scope": (3, 3)},
    "no columns": {"size": (4, 0), "scope": (3, 3), "hidden": 0.5},
    "no batch": {"size": (7,), "scope": (3,), "batch": 0},
    "no batch, causal": {"size": (7,), "scope": (3,), "batch": 0, "causal": True, "key_norm": "none"},
    "no batch, image": {"size": (3, 5), "scope": (3, 3), "batch": 0, "content": False},
}


@pytest.mark.parametrize("algorithm", EVERYWHERE)
@pytest.mark.parametrize("case", EMPTY)
def test_nothing_gives_nothing(case, algorithm):
    """An empty output, and gradients of zero for what is not empty."""
    found = make(**EMPTY[case]).run_with_gradients(algorithm)
    assert found["output"].shape[2:-1] == EMPTY[case]["size"]
    assert all((tensor == 0).all() for tensor in found.values())


@pytest.mark.parametrize(("size", "batch"), [(0, 2), (5, 0), (0, 0)])
def test_nothing_packed_and_streamed(size, batch):
    inputs = make((size,), (3,), batch=batch, causal=True)
    tensors = (inputs.query, inputs.key, inputs.value, inputs.embedding)
    packing = LF.Packing.of(torch.zeros(batch, size, dtype=torch.long))
    state = LF.StreamState.empty(inputs.key, inputs.value)
    outputs = LF.packed_lambda_layer(*tensors, packing, causal=True), LF.stream(*tensors, state)[0]
    for output in outputs:
        assert output.shape == (batch, 3, size, 5)
        assert all((gradient == 0).all() for gradient in torch.autograd.grad(output.sum(), tensors))


def test_causal_takes_an_even_scope():
    assert call(make((9,), (4,), causal=True)).shape == (2, 3, 9, 5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("taps", [1, 3, 4, 7, 41])
@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_clipping_leaves_the_offsets_that_two_positions_can_have(length, taps, causal):
    """By their values: the embedding holds its own offsets."""
    if not causal and taps % 2 == 0:
        taps += 1
    (first,) = origin((taps,), causal)
    embedding = (torch.arange(taps) - first).expand(1, 1, taps)
    clipped, (index,) = clip(embedding, (first,), (length,))
    possible = {m - n for m in range(length) for n in range(length) if not causal or m <= n}
    assert clipped[0, 0].tolist() == sorted(possible & set(embedding[0, 0].tolist()))
    assert clipped[0, 0, index] == 0
    assert within((taps,), (first,), (length,)) == (tuple(clipped.shape[2:]), (index,))


@pytest.mark.parametrize(
    ("size", "scope", "causal"), [((9,), (5,), False), ((9,), (40,), True), ((3, 4), (5, 41), False)]
)
def test_a_problem_has_the_sizes_that_its_algorithms_get(size, scope, causal):
    inputs = make(size, scope, causal=causal, intra=2)
    problem = Problem.of(inputs.query, None, inputs.value, inputs.embedding, causal=causal)
    images = (inputs.query, inputs.value, inputs.embedding)
    if len(size) == 1:
        images = tuple(tensor.unsqueeze(2) for tensor in images)
    assert sized(*images, problem.origin)[1] == problem.sizes
    assert problem.size == size
    assert problem.scope == within(scope, origin(scope, causal), size)[0]
