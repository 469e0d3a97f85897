"""Bad input: an error that names the argument, the value and what would be right."""

import pytest
import torch
from problems import make

from lambda_seq import functional as LF


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


def test_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="only the batch may be empty"):
        call(make((0,), (3,)))


def test_causal_takes_an_even_scope():
    assert call(make((9,), (4,), causal=True)).shape == (2, 3, 9, 5)
