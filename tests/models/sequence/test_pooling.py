import pytest
import torch

from lambda_seq import functional as LF
from lambda_seq.models.sequence.pooling import POOLS, SequencePool

# Row by row: padded at the end, in front, with a hole, whole, and without a real position.
MASK = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)


def pooled_by_hand(pool, rows):
    match pool:
        case "mean":
            return rows.mean(0)
        case "max":
            return rows.amax(0)
        case "first":
            return rows[0]
        case "last":
            return rows[-1]
        case "sqrt":
            return rows.sum(0) / len(rows) ** 0.5
        case _:
            raise ValueError(pool)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(5, 4, 3, dtype=torch.float64)


@pytest.mark.parametrize("pool", [pool for pool in POOLS if pool != "attention"])
def test_real_positions_only(pool, x):
    out = SequencePool(3, pool)(x.masked_fill(~MASK[..., None], float("nan")), MASK)
    for row in range(4):
        torch.testing.assert_close(out[row], pooled_by_hand(pool, x[row][MASK[row]]))
    torch.testing.assert_close(out[4], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("pool", POOLS)
def test_no_mask_is_a_mask_of_ones(pool, x):
    module = SequencePool(3, pool).double()
    torch.testing.assert_close(module(x), module(x, torch.ones(5, 4, dtype=torch.bool)))


def test_attention_weighs_by_softmax(x):
    module = SequencePool(3, "attention").double()
    torch.testing.assert_close(module(x, MASK), SequencePool(3, "mean")(x, MASK))
    with torch.no_grad():
        module.query.copy_(torch.tensor([1.0, -2.0, 0.5]))
    out = module(x, MASK)
    for row in range(4):
        rows = x[row][MASK[row]]
        torch.testing.assert_close(out[row], (rows @ module.query / 3**0.5).softmax(0) @ rows)
    assert not out[4].any()


@pytest.mark.parametrize("pool", POOLS)
def test_gradients_are_finite_and_real(pool, x):
    x.requires_grad_()
    module = SequencePool(3, pool).double()
    module(x, MASK).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[~MASK].any()
    if module.query is not None:
        assert module.query.grad.any()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_keeps_its_dtype_and_sums_in_float32(pool, dtype):
    # In float16 a sum of 8,000 times 100 would overflow.
    out = SequencePool(2, pool).to(dtype)(torch.full((1, 8000, 2), 100, dtype=dtype))
    assert out.dtype == dtype
    expected = 100 * 8000**0.5 if pool == "sqrt" else 100
    torch.testing.assert_close(out, torch.full((1, 2), expected, dtype=dtype))


def test_unknown_pool():
    with pytest.raises(
        ValueError, match=r"pool='sum': expected one of 'mean', 'max', 'attention', 'first', 'last', 'sqrt'"
    ):
        SequencePool(3, "sum")


@pytest.mark.parametrize("pool", POOLS)
def test_documents_are_pooled_one_by_one(pool, x):
    documents = torch.tensor([[0, 0, 0, 1], [-1, 4, 4, 2], [5, 5, 5, 5], [-1, -1, -1, -1], [3, 7, 3, 3]])
    spans = [(0, 0, 3), (0, 3, 4), (1, 1, 3), (1, 3, 4), (2, 0, 4), (4, 0, 1), (4, 1, 2), (4, 2, 4)]
    module = SequencePool(3, pool).double()
    if module.query is not None:
        torch.nn.init.normal_(module.query)
    results = []
    for packed in (True, False):
        rows = x.clone().requires_grad_()
        if packed:
            out = module(rows, None, LF.Packing.of(documents))
        else:
            out = torch.cat([module(rows[row : row + 1, begin:end]) for row, begin, end in spans])
        (gradient,) = torch.autograd.grad((out * torch.arange(24).view(8, 3)).sum(), rows)
        results.append((out.detach(), gradient))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    assert module(x, None, LF.Packing.of(documents.fill_(-1))).shape == (0, 3)
