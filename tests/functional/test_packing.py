"""Documents in one row: each as if alone, forward and backward, and nothing from one to another."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import EVERYWHERE, make

from lambda_seq import functional as LF

NAMES = ("query", "key", "value", "embedding")
# Documents by length, −n for n positions of padding, row by row; all rows become as long as the longest.
LAYOUTS = {
    "two rows": [[5, 9, 2], [7, 1, 8]],
    "many lengths": [[1, 1, 2, 3, 4, 5, 8, 9], [16, 17]],
    "padding between and after": [[-2, 4, -1, 6, -3], [3, 3, -5]],
    "an empty row": [[4, 6], [-10], [10]],
    "a row is a document": [[11], [11]],
    "a row is a document, padded": [[11], [-2, 4, -5], [-11]],
    "nothing real": [[-4], [-4]],
    "positions of length 1": [[1] * 7],
    "longer than one block": [[70, 300, 40], [33, 129, 200]],
}


def ids(rows):
    """Document ids (B, N) of a layout, negative at padding."""
    width = max(sum(map(abs, row)) for row in rows)
    table = torch.full((len(rows), width), -1)
    for row, lengths in enumerate(rows):
        begin = 0
        for number, length in enumerate(lengths):
            if length > 0:
                table[row, begin : begin + length] = number
            begin += abs(length)
    return table


def spans(rows):
    """(row, slice) of each document."""
    found = []
    for row, lengths in enumerate(rows):
        begin = 0
        for length in lengths:
            if length > 0:
                found.append((row, slice(begin, begin + length)))
            begin += abs(length)
    return found


def problem(rows, scope, **options):
    documents = ids(rows)
    inputs = make((documents.shape[1],), scope, batch=len(rows), **options)
    inputs.grad = inputs.grad * (documents >= 0)[:, None, :, None]
    return documents, inputs


def present(inputs):
    tensors = {name: getattr(inputs, name) for name in NAMES}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def packed(inputs, packing, algorithm="auto"):
    output = LF.packed_lambda_layer(
        inputs.query, inputs.key, inputs.value, inputs.embedding, packing, algorithm=algorithm, **inputs.options
    )
    tensors = present(inputs)
    gradients = torch.autograd.grad(output, list(tensors.values()), inputs.grad)
    return {"output": output.detach(), **dict(zip(tensors, gradients, strict=True))}


def separate(inputs, places, mask=None):
    """The definition on each document alone, put together; gradients add up."""
    tensors = present(inputs)
    found = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    found["output"] = torch.zeros_like(inputs.grad)
    for row, place in places:
        alone = {
            name: (tensor if name == "embedding" else tensor[row : row + 1, :, place]).detach().requires_grad_()
            for name, tensor in tensors.items()
        }
        output = LF.lambda_layer(
            *(alone.get(name) for name in NAMES),
            mask=None if mask is None else mask[row : row + 1, place],
            algorithm="naive",
            **inputs.options,
        )
        gradients = torch.autograd.grad(output, list(alone.values()), inputs.grad[row : row + 1, :, place])
        found["output"][row, :, place] = output[0].detach()
        for name, gradient in zip(alone, gradients, strict=True):
            if name == "embedding":
                found[name] += gradient
            else:
                found[name][row, :, place] += gradient[0]
    return found


def assert_close(found, expected):
    for name, tensor in expected.items():
        tolerance = (1e-10 if name == "output" else 1e-9) * max(1.0, tensor.abs().max().item())
        assert (found[name] - tensor).abs().max() < tolerance, name


@pytest.mark.parametrize("algorithm", EVERYWHERE)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_each_document_alone(layout, causal, algorithm):
    if algorithm == "naive" and layout == "longer than one block":
        pytest.skip("the twin builds n × m × k")
    documents, inputs = problem(LAYOUTS[layout], (7,), causal=causal)
    assert_close(packed(inputs, LF.Packing.of(documents), algorithm), separate(inputs, spans(LAYOUTS[layout])))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"scope": (3,), "intra": 2},
        {"scope": (3,), "content": False},
        {"scope": None},
        {"scope": (35,)},
    ],
    ids=str,
)
def test_whatever_the_options(options, key_norm, causal):
    rows = LAYOUTS["padding between and after"]
    documents, inputs = problem(rows, **options, key_norm=key_norm, causal=causal)
    assert_close(packed(inputs, LF.Packing.of(documents)), separate(inputs, spans(rows)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(st.integers(-3, 9).filter(bool), min_size=1, max_size=5), min_size=1, max_size=3),
    causal=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_layout(rows, causal, seed):
    torch.manual_seed(seed)
    documents, inputs = problem(rows, (5,), causal=causal)
    assert_close(packed(inputs, LF.Packing.of(documents)), separate(inputs, spans(rows)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", [[[6, 7], [13]], [[13], [13]]], ids=["packed", "plain"])
def test_positions_that_a_mask_hides_keep_their_place(rows, causal):
    documents, inputs = problem(rows, (5,), causal=causal)
    mask = torch.rand(documents.shape) < 0.6
    mask[:, 0] = True
    inputs.grad = inputs.grad * mask[:, None, :, None]
    found = packed(inputs, LF.Packing.of(documents, mask))
    expected = separate(inputs, spans(rows), mask)
    expected["output"] *= mask[:, None, :, None]
    assert_close(found, expected)
    assert not found["output"].transpose(1, 2)[~mask].any()


def test_the_longest_document_decides_how_large_the_embedding_must_be():
    rows = [[5, 9, 2], [7, 1, 8]]
    documents, inputs = problem(rows, (31,))
    whole = packed(inputs, LF.Packing.of(documents))
    inputs.embedding = inputs.embedding.detach()[..., 7:-7].requires_grad_()  # 17 offsets, of 9 positions
    assert LF.Packing.of(documents).longest == 9
    torch.testing.assert_close(packed(inputs, LF.Packing.of(documents))["output"], whole["output"])


@pytest.mark.parametrize("algorithm", [name for name in EVERYWHERE if name != "naive"])
@pytest.mark.parametrize("causal", [False, True])
def test_no_leak_at_all(algorithm, causal):
    documents, inputs = problem([[20, 21, 17]], (41,), causal=causal)
    packing = LF.Packing.of(documents)
    for number in range(3):
        inputs.grad = torch.ones_like(inputs.grad) * (documents == number)[:, None, :, None]
        found = packed(inputs, packing, algorithm)
        for name in ("query", "key", "value"):
            assert not found[name].transpose(1, 2)[documents != number].any(), name


def test_what_stands_at_padding_does_not_matter_even_nan():
    documents, inputs = problem([[4, -3, 5], [6, 6]], (5,))
    packing = LF.Packing.of(documents)
    expected = packed(inputs, packing)
    for name in ("query", "key", "value"):
        spoilt = getattr(inputs, name).detach().clone()
        spoilt.transpose(1, 2)[documents < 0] = torch.nan
        setattr(inputs, name, spoilt.requires_grad_())
    for name, tensor in packed(inputs, packing).items():
        assert torch.equal(tensor, expected[name]), name


def test_gradcheck_and_second_derivatives_of_the_definition():
    documents, inputs = problem([[2, 3], [-1, 4]], (3,), heads=2, dim_key=2, dim_value=2)
    packing = LF.Packing.of(documents)

    def function(query, key, value, embedding):
        return LF.packed_lambda_layer(query, key, value, embedding, packing, algorithm="naive")

    tensors = tuple(present(inputs).values())
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_half_precision_and_layout_in_memory():
    documents, inputs = problem([[9, 20], [13, 16]], (5,), dtype=torch.bfloat16)
    output = LF.packed_lambda_layer(inputs.query, inputs.key, inputs.value, inputs.embedding, LF.Packing.of(documents))
    assert output.dtype == torch.bfloat16
    assert output.transpose(1, 2).is_contiguous()  # heads concatenate without a copy


def test_memory_is_linear():
    """What is saved for backward, per position, does not grow with the number of positions."""

    def saved(count):
        documents, inputs = problem([[count // 4, count // 2, count // 4]], (9,))
        sizes = {}
        packing = LF.Packing.of(documents)

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            LF.packed_lambda_layer(inputs.query, inputs.key, inputs.value, inputs.embedding, packing)
        return sum(sizes.values()) / count

    assert saved(4096) <= 1.05 * saved(1024)


def test_what_a_packing_holds():
    documents = torch.tensor([[7, 7, 7, 3, 7, 7], [-1, 5, 5, -1, 5, -1], [-1] * 6, [2] * 6])
    packing = LF.Packing.of(documents)
    assert len(packing) == 6  # an id that comes back is a new document
    assert packing.shape == (4, 6)
    assert packing.rows.tolist() == [0, 0, 0, 1, 1, 3]
    assert packing.starts.tolist() == [0, 3, 4, 1, 4, 0]
    assert packing.lengths.tolist() == [3, 1, 2, 2, 1, 6]
    assert packing.longest == 6
    assert packing.mask.tolist() == (documents >= 0).tolist()
    assert packing.number.tolist() == [[0, 0, 0, 1, 2, 2], [-1, 3, 3, -1, 4, -1], [-1] * 6, [5] * 6]
    assert [(bucket.documents.tolist(), bucket.length) for bucket in packing.buckets] == [
        ([1, 4], 1),
        ([2, 3], 2),
        ([0], 3),
        ([5], 6),
    ]
    assert not packing.plain
    x = torch.arange(24).view(4, 6, 1) + 1
    assert packing.split(x)[1].squeeze(-1).tolist() == [[5, 6], [8, 9]]
    assert torch.equal(packing.merge(packing.split(x)), x * packing.mask[..., None])


def test_a_mask_ends_documents_and_hides_runs():
    documents = torch.tensor([[1, 1, 1, 2, 2, 1]])
    mask = torch.tensor([[False, True, False, False, False, True]])
    packing = LF.Packing.of(documents, mask)
    assert packing.mask is mask
    assert (packing.starts.tolist(), packing.lengths.tolist()) == ([1, 5], [1, 1])
    assert LF.Packing.of(documents, torch.ones_like(mask)).longest == 3
    assert LF.Packing.of(documents).mask is None


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=40))
def test_padding_stays_below_the_documents_themselves(lengths):
    packing = LF.Packing.of(ids([lengths]))
    assert packing.index.shape[0] < 2 * sum(lengths)
    assert len(packing.buckets) <= 10


def test_a_row_for_each_document_is_plain():
    assert LF.Packing.of(torch.tensor([[4, 4, 4], [4, 4, -1], [-1, -1, -1]])).plain
    assert not LF.Packing.of(torch.tensor([[4, 4, 5]])).plain


def test_cumulative_lengths():
    packing = LF.Packing.of_cu_seqlens(torch.tensor([0, 3, 4, 9], dtype=torch.int32))
    expected = LF.Packing.of(torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2, 2]]))
    assert torch.equal(packing.number, expected.number)
    assert packing.lengths.tolist() == [3, 1, 5]
    assert LF.Packing.of_cu_seqlens([0, 3, 4, 9]).shape == (1, 9)


def test_a_packing_is_taken_as_it_is():
    documents = torch.tensor([[0, 0, -1, 1]])
    packing = LF.Packing.of(documents)
    assert LF.Packing.of(packing) is packing
    assert LF.Packing.of(packing, documents >= 0) is packing
    assert LF.Packing.of(packing, torch.ones(1, 4, dtype=torch.bool)) is packing
    with pytest.raises(
        ValueError, match=r"1 positions in documents where mask is False.*Packing.of\(documents, mask\)"
    ):
        LF.Packing.of(packing, torch.tensor([[True, False, True, True]]))


FULL = torch.zeros(2, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("documents", "mask", "error", "message"),
    [
        ([[0, 0]], None, TypeError, r"documents is list: expected integer ids, \(B, N\)"),
        (FULL.float(), None, TypeError, r"documents is torch.float32: .*use documents.long\(\)"),
        (FULL.bool(), None, TypeError, r"documents is torch.bool: .*a mask is an argument of its own"),
        (FULL[0], None, ValueError, r"documents has shape \(5,\): expected \(B, N\)"),
        (FULL[None], None, ValueError, r"documents has shape \(1, 2, 5\): expected \(B, N\)"),
        (FULL, FULL, TypeError, r"mask is torch.int64: .*use mask.bool\(\)"),
        (FULL, FULL[:, 1:].bool(), ValueError, r"mask has shape \(2, 4\): expected \(2, 5\), \(B, N\) as documents"),
    ],
)
def test_bad_documents(documents, mask, error, message):
    with pytest.raises(error, match=message):
        LF.Packing.of(documents, mask)


@pytest.mark.parametrize(
    ("ends", "error", "message"),
    [
        ([0.0, 2.0], TypeError, "cu_seqlens is torch.float32: expected integers"),
        ([1, 2], ValueError, r"cu_seqlens=\[1, 2\]: .*begin with 0"),
        ([0], ValueError, r"cu_seqlens=\[0\]: expected \(D \+ 1,\)"),
        ([0, 4, 4], ValueError, r"document 1 has 0 positions; expected each at least 1"),
        ([0, 4, 3], ValueError, r"document 1 has -1 positions"),
    ],
)
def test_bad_cumulative_lengths(ends, error, message):
    with pytest.raises(error, match=message):
        LF.Packing.of_cu_seqlens(ends)


def test_bad_calls():
    _, inputs = problem([[4, 3]], (5,))
    packing = LF.Packing.of(torch.zeros(1, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"documents has shape \(1, 6\): expected \(1, 7\)"):
        packed(inputs, packing)
    meta = [getattr(inputs, name).to("meta") for name in NAMES]
    with pytest.raises(ValueError, match="documents is on cpu but the input on meta"):
        LF.packed_lambda_layer(*meta, LF.Packing.of(torch.zeros(1, 7, dtype=torch.int64)))
    image = make((4, 3), (3, 3))
    with pytest.raises(ValueError, match=r"expected \(B, H, N, K\), as documents are sequences"):
        packed(image, packing)
    with pytest.raises(ValueError, match="algorithm='fast': expected one of"):
        packed(inputs, LF.Packing.of(torch.tensor([[0, 0, 0, 0, 1, 1, 1]])), "fast")


def test_a_packing_moves_as_one():
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    packing = LF.Packing.of(torch.tensor([[0, 0, 1, 1, 1, 1], [2, 3, 3, 3, 9, 9]]), mask)
    moved = packing.to("meta")
    for name in ("mask", "number", "rows", "starts", "lengths", "index", "filled", "place"):
        there, here = getattr(moved, name), getattr(packing, name)
        assert (there is None) == (here is None)
        assert there is None or (there.device.type == "meta" and there.shape == here.shape)
    assert [bucket.documents.device.type for bucket in moved.buckets] == ["meta"] * len(packing.buckets)
    assert [bucket.length for bucket in moved.buckets] == [bucket.length for bucket in packing.buckets]
    assert (moved.shape, moved.longest, moved.plain) == (packing.shape, packing.longest, packing.plain)
    again = packing.to("cpu")
    x = torch.randn(2, 6, 3)
    assert torch.equal(again.merge(again.split(x)), packing.merge(packing.split(x)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_buckets_find_is_collected_by_document(layout):
    documents = ids(LAYOUTS[layout])
    packing = LF.Packing.of(documents)
    values = torch.arange(documents.numel(), dtype=torch.float64).view(*documents.shape, 1)
    firsts = [part[:, 0] for part in packing.split(values)] or [values[:0, 0]]
    expected = torch.stack([values[row, span.start] for row, span in spans(LAYOUTS[layout])] or [values[0, :0]])
    torch.testing.assert_close(packing.collect(firsts), expected.view(-1, 1), rtol=0, atol=0)
    for dealt, found in zip(packing.deal(packing.collect(firsts)), firsts, strict=True):
        torch.testing.assert_close(dealt, found, rtol=0, atol=0)
