"""The definition against golden vectors that were computed by explicit loops."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import VECTORS
from problems import EVERYWHERE

from lambda_seq import functional as LF

OWN = Path(__file__).with_name("golden.npz")


def own_cases():
    with np.load(OWN) as arrays:
        names = sorted({name.split("/")[0] for name in arrays})
        return {
            name: {key.split("/")[1]: arrays[key] for key in arrays if key.startswith(f"{name}/")} for name in names
        }


CASES = own_cases()


def check(case, algorithm, dtype, tolerance):
    arrays = {name: torch.from_numpy(np.array(case[name])) for name in ("query", "key", "value", "embedding")}
    query, key, value, embedding = (tensor.to(dtype) for tensor in arrays.values())
    mask = torch.from_numpy(case["mask"])
    options = {"mask": mask, "causal": bool(case["causal"]), "key_norm": str(case["key_norm"]), "algorithm": algorithm}
    parts = {
        "output": (key, embedding),
        "content": (key, None),
        "position": (None, embedding),
    }
    for part, (some_key, some_embedding) in parts.items():
        output = LF.lambda_layer(query, some_key, value, some_embedding, **options)
        expected = case["content"] + case["position"] if part == "output" else case[part]
        real = mask[:, None, ..., None]
        error = ((output.double() - torch.from_numpy(expected)) * real).abs().max()
        assert error <= tolerance * np.abs(expected).max(), part


@pytest.mark.parametrize("algorithm", EVERYWHERE)
@pytest.mark.parametrize("name", CASES)
def test_own_golden_vectors(name, algorithm):
    check(CASES[name], algorithm, torch.float64, 1e-10)
    check(CASES[name], algorithm, torch.float32, 1e-5)


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"the golden vectors beside the checkout, {VECTORS.name}, are absent")
@pytest.mark.parametrize("algorithm", EVERYWHERE)
def test_golden_vectors_beside_the_checkout(algorithm):
    index = json.loads((VECTORS / "index.json").read_text())
    for name, entry in index.items():
        with np.load(VECTORS / f"{name}.npz") as arrays:
            case = dict(arrays)
        case |= {"causal": entry.get("causal", False), "key_norm": entry.get("how", "softmax")}
        check(case, algorithm, torch.float64, 1e-10)
        check(case, algorithm, torch.float32, 1e-5)


def test_own_golden_vectors_cover_every_option():
    assert {str(case["key_norm"]) for case in CASES.values()} == set(LF.KEY_NORMS)
    assert {bool(case["causal"]) for case in CASES.values()} == {True, False}
    assert {case["query"].ndim for case in CASES.values()} == {4, 5}
    assert any(not case["mask"].all() for case in CASES.values())
