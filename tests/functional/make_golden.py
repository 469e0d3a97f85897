"""Write golden.npz: inputs and outputs of the lambda layer by explicit loops over the definition, in NumPy float64.

Independent of the library on purpose: `python tests/functional/make_golden.py` reproduces the file.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("golden.npz")

# name: batch, heads, intra, size, k, v, scope, causal, key norm, share of masked positions
CASES = {
    "sequence": (2, 3, 1, (9,), 3, 2, (5,), False, "softmax", 0.0),
    "sequence_intra_masked": (2, 2, 2, (8,), 3, 2, (3,), False, "softmax", 0.4),
    "sequence_global": (1, 2, 1, (6,), 2, 3, (11,), False, "l2", 0.0),
    "sequence_wide": (1, 2, 1, (4,), 2, 2, (13,), False, "none", 0.3),
    "causal": (2, 2, 1, (9,), 3, 2, (4,), True, "softmax", 0.3),
    "causal_l2": (1, 2, 2, (7,), 2, 2, (7,), True, "l2", 0.2),
    "causal_none": (1, 2, 1, (7,), 2, 2, (9,), True, "none", 0.2),
    "image": (1, 2, 1, (4, 5), 2, 3, (3, 5), False, "softmax", 0.0),
    "image_intra_masked": (2, 2, 2, (3, 4), 2, 2, (5, 3), False, "softmax", 0.3),
    "image_wide": (1, 1, 1, (3, 2), 2, 2, (7, 9), False, "l2", 0.0),
}


def normalised(key: np.ndarray, how: str) -> np.ndarray:
    """One channel's keys over the visible positions."""
    if how == "softmax":
        weights = np.exp(key - key.max())
        return weights / weights.sum()
    if how == "l2":
        length = np.sqrt((key**2).sum())
        return key / length if length > 0 else key
    return key


def outputs(query, key, value, embedding, mask, causal, how):
    """Content and position part of the output, position by position."""
    batch, heads, *size, dim_key = query.shape
    intra, dim_value = value.shape[1], value.shape[-1]
    positions = list(product(*(range(length) for length in size)))
    content = np.zeros((batch, heads, *size, dim_value))
    position = np.zeros_like(content)
    origin = [taps - 1 if causal else (taps - 1) // 2 for taps in embedding.shape[2:]]
    for b, n in product(range(batch), positions):
        visible = [m for m in positions if mask[(b, *m)] and (not causal or m <= n)]
        if not visible:
            continue
        content_lambda, position_lambda = np.zeros((dim_key, dim_value)), np.zeros((dim_key, dim_value))
        for u, k in product(range(intra), range(dim_key)):
            weights = normalised(np.array([key[(b, u, *m, k)] for m in visible]), how)
            for weight, m in zip(weights, visible, strict=True):
                content_lambda[k] += weight * value[(b, u, *m)]
                offset = [there - here + first for there, here, first in zip(m, n, origin, strict=True)]
                if all(0 <= j < taps for j, taps in zip(offset, embedding.shape[2:], strict=True)):
                    position_lambda[k] += embedding[(u, k, *offset)] * value[(b, u, *m)]
        for h in range(heads):
            content[(b, h, *n)] = content_lambda.T @ query[(b, h, *n)]
            position[(b, h, *n)] = position_lambda.T @ query[(b, h, *n)]
    return content, position


def main() -> None:
    """Draw the inputs, compute the outputs, write the file."""
    random = np.random.default_rng(2021)
    arrays = {}
    for name, (batch, heads, intra, size, dim_key, dim_value, scope, causal, how, hidden) in CASES.items():
        inputs = {
            "query": random.normal(size=(batch, heads, *size, dim_key)),
            "key": 2 * random.normal(size=(batch, intra, *size, dim_key)),
            "value": random.normal(size=(batch, intra, *size, dim_value)),
            "embedding": random.normal(size=(intra, dim_key, *scope)),
            "mask": random.random((batch, *size)) >= hidden,
        }
        content, position = outputs(**inputs, causal=causal, how=how)
        inputs |= {"content": content, "position": position, "causal": np.array(causal), "key_norm": np.array(how)}
        arrays |= {f"{name}/{field}": array for field, array in inputs.items()}
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
