"""The lambda layer on chunks of a sequence equals the layer on all of it."""

import pytest
import torch

from lambda_seq import functional as LF
from lambda_seq import parallel
from lambda_seq.layers import ExponentialPosition

BATCH, HEADS, DIM_KEY, DIM_VALUE = 2, 2, 3, 5

SLOW = pytest.mark.slow
SIZES = [(20, 1, 2, 20), pytest.param((22, 21), marks=SLOW), pytest.param((11, 11, 11, 10), marks=SLOW)]  # 43 together

# scope None: content only; an even number of offsets is causal
CASES = {
    "local": {"scope": 7},
    "content": {"scope": None},
    "position": {"scope": 7, "content": False},
    "masked": {"scope": 5, "masked": True},
    "intra": {"scope": 3, "intra": 2, "masked": True},
    "l2": {"scope": 5, "key_norm": "l2", "masked": True},
    "unnormalised": {"scope": 1, "key_norm": "none"},
    "halo_of_several_chunks": {"scope": 31, "exchange": "halo"},
    "causal_halo_of_several_chunks": {"scope": 14, "causal": True, "exchange": "halo"},
    "global": {"scope": 85},
    "wide": {"scope": 41, "masked": True, "intra": 2},
    "too_wide": {"scope": 101, "exchange": "channels"},
    "causal": {"scope": 4, "causal": True},
    "causal_masked": {"scope": 4, "causal": True, "masked": True, "intra": 2},
    "causal_l2": {"scope": 4, "causal": True, "masked": True, "key_norm": "l2"},
    "causal_unnormalised": {"scope": 4, "causal": True, "key_norm": "none"},
    "causal_global": {"scope": 43, "causal": True},
    "exponential": {"exponential": True, "causal": True},
    "exponential_masked": {"exponential": True, "causal": True, "masked": True, "intra": 2},
}
DOCUMENTS = {
    "content": {"scope": None},
    "l2": {"scope": None, "key_norm": "l2", "masked": True},
    "unnormalised": {"scope": 1, "key_norm": "none"},
    "local": {"scope": 4, "intra": 2},
    "local_masked": {"scope": 4, "masked": True},
    "halo_of_several_chunks": {"scope": 14, "content": False},
    "global": {"scope": 43, "masked": True},
    "exponential": {"exponential": True},
    "exponential_masked": {"exponential": True, "masked": True, "intra": 2},
}
BOTH_WAYS = {
    "content": {"scope": None},
    "l2": {"scope": None, "key_norm": "l2", "masked": True},
    "unnormalised": {"scope": 1, "key_norm": "none"},
    "local": {"scope": 5, "intra": 2},
    "local_masked": {"scope": 5, "masked": True},
    "halo_of_several_chunks": {"scope": 31, "content": False},
    "global": {"scope": 85, "masked": True},
}
# Of each row, the lengths of its documents; one of id −1 is padding
ROWS = {
    "short_and_long": [[5, 30, 3, 5], [10, 1, 1, 20, 11]],
    "one_each": [[43], [43]],
    "at_the_ends_of_chunks": [[11, 22, 10], [22, 21]],
    "one_and_many": [[43], [4] * 10 + [3]],
    "padded": [[7, 20, -16], [-4, 30, -9]],
    "nothing_in_a_row": [[-43], [3, 40]],
}


def ids_of(rows):
    """Ids (B, N) that come back: what is meant by them are runs."""
    found = []
    for row in rows:
        ids = [number % 2 if length > 0 else -1 for number, length in enumerate(row)]
        found.append(torch.tensor(ids).repeat_interleave(torch.tensor(row).abs()))
    return torch.stack(found)


def problem(length, dtype, *, scope=None, content=True, masked=False, intra=1, exponential=False, **options):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = {
        "query": draw(BATCH, HEADS, length, DIM_KEY),
        "key": 3 * draw(BATCH, intra, length, DIM_KEY) if content else None,
        "value": draw(BATCH, intra, length, DIM_VALUE),
        "embedding": None if scope is None else draw(intra, DIM_KEY, scope),
    }
    mask = torch.ones(BATCH, length, dtype=torch.bool)
    if masked:
        mask[0, length // 3 :] = False  # whole chunks without a real position
        mask[1, : length // 2] = False
    grad = draw(BATCH, HEADS, length, DIM_VALUE) * mask[:, None, :, None]
    if exponential:
        torch.manual_seed(2)
        module = ExponentialPosition(intra, DIM_KEY, max_size=(length,), causal=True, terms=4).to(dtype)
        tensors.update(module.named_parameters())
        options["module"] = module
    return tensors, mask if masked else None, grad, options


def leaves(tensors):
    return {
        name: tensor if isinstance(tensor, torch.nn.Parameter) else tensor.clone().requires_grad_()
        for name, tensor in tensors.items()
        if tensor is not None
    }


def whole(length, dtype, **case):
    tensors, mask, grad, options = problem(length, dtype, **case)
    options.pop("exchange", None)
    module, documents = (options.pop(name, None) for name in ("module", "documents"))
    found = leaves(tensors)
    embedding = module((length,)).to(dtype) if module else found.get("embedding")
    inputs = (found["query"], found.get("key"), found["value"], embedding)
    if documents is None:
        output = LF.lambda_layer(*inputs, mask=mask, **options)
    else:
        output = LF.packed_lambda_layer(*inputs, LF.Packing.of(ids_of(documents), mask), **options)
    output = output if mask is None else output * mask[:, None, :, None]
    gradients = torch.autograd.grad(output, list(found.values()), grad)
    return {"output": output.detach(), **dict(zip(found, gradients, strict=True))}


def chunked(sizes, dtype, case):
    """Runs on every process; sizes are those of the chunks of the processes that share a sequence."""
    mesh = parallel.make_mesh(len(sizes))
    group = parallel.sequence_group(mesh)
    tensors, mask, grad, options = problem(sum(sizes), dtype, **case)
    module = options.pop("module", None)
    start = sum(sizes[: group.rank()])
    part = slice(start, start + sizes[group.rank()])
    if "documents" in options:
        options["documents"] = ids_of(options["documents"])[:, part]
    along = ("query", "key", "value")
    found = leaves({n: t[:, :, part] if n in along and t is not None else t for n, t in tensors.items()})
    own_mask = None if mask is None else mask[:, part]
    embedding = module.streaming(sum(sizes)) if module else found.get("embedding")
    output = parallel.lambda_layer(
        found["query"], found.get("key"), found["value"], embedding, group, mask=own_mask, **options
    )
    if mask is not None:
        output = output * own_mask[:, None, :, None]
    gradients = dict(zip(found, torch.autograd.grad(output, list(found.values()), grad[:, :, part]), strict=True))
    results = {"output": output.detach(), **gradients}
    joined = {}
    for name, tensor in results.items():
        if name in (*along, "output"):
            joined[name] = parallel.gather_sequence(tensor, mesh, dim=2)
        else:
            joined[name] = parallel.sum_over_sequence(tensor, mesh)
    return joined


def check(processes, sizes, dtype, case, tolerance):
    expected = whole(sum(sizes), dtype, **case)
    for results in processes.run(chunked, sizes, dtype, case):
        assert results.keys() == expected.keys()
        for name, tensor in expected.items():
            error = (results[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1e-3)
            assert error < tolerance, f"{name}: {error:.2e}"


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_equals_one_process(four, case, sizes):
    check(four, sizes, torch.float64, CASES[case], 1e-9)


@pytest.mark.parametrize("case", ["local", "global", "causal_masked", "exponential"])
def test_equals_one_process_in_float32(four, case):
    check(four, (11, 11, 11, 10), torch.float32, CASES[case], 1e-5)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents_that_go_on_from_chunk_to_chunk(four, case, rows, sizes):
    check(four, sizes, torch.float64, DOCUMENTS[case] | {"causal": True, "documents": ROWS[rows]}, 1e-9)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("case", BOTH_WAYS)
def test_documents_that_are_read_both_ways(four, case, rows, sizes):
    check(four, sizes, torch.float64, BOTH_WAYS[case] | {"documents": ROWS[rows]}, 1e-9)


@pytest.mark.parametrize("case", ["local_masked", "global"])
def test_documents_read_both_ways_in_float32(four, case):
    options = BOTH_WAYS[case] | {"documents": ROWS["short_and_long"]}
    check(four, (11, 11, 11, 10), torch.float32, options, 1e-5)


@pytest.mark.parametrize("case", ["local_masked", "global", "exponential"])
def test_documents_in_float32(four, case):
    options = DOCUMENTS[case] | {"causal": True, "documents": ROWS["short_and_long"]}
    check(four, (11, 11, 11, 10), torch.float32, options, 1e-5)
