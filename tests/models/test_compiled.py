"""Whole networks compile without a break, forward and backward, and compute what they do uncompiled."""

import copy

import pytest
import torch

from lambda_seq import create_model

SMALL = {"dim": 16, "depth": 1, "heads": 2, "dim_key": 4, "scope": 5}
NETWORKS = {
    "encoder": ("lambda_encoder", SMALL),
    "encoder, batch norms behind convolutions": ("lambda_encoder", {**SMALL, "norm": "batch", "strides": [2]}),
    "encoder, attention pool, multi-scale": (
        "lambda_encoder",
        {**SMALL, "pool": "attention", "position": "multiscale"},
    ),
    "encoder of spectra": ("lambda_encoder", {**SMALL, "stem": "spectrum", "strides": [8]}),
    "encoder of words": ("lambda_encoder", {**SMALL, "stem": "ngrams", "buckets": 99, "tf": "log"}),
    "language model": ("lambda_lm", SMALL),
    "language model, exponential": ("lambda_lm", {**SMALL, "scope": None, "position": "exponential"}),
    "pictures": ("lambda_resnet_tiny", {"blocks": (1,), "width": 8, "heads": 2, "scope": 3}),
}


def inputs(model, count):
    drawn = torch.Generator().manual_seed(count)
    if model.input_kind == "image":
        return (torch.randn(2, 3, count, count, generator=drawn),)
    if model.input_kind == "waveform":
        return (torch.randn(2, 40 * count, generator=drawn),)
    tokens = torch.randint(1, 257, (2, 4 * count), generator=drawn)
    return tokens, torch.arange(4 * count) < torch.tensor([[4 * count], [3 * count]])


@pytest.mark.slow(seconds=18)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compile_whole(name):
    torch.manual_seed(0)
    torch._dynamo.reset()
    kind, options = NETWORKS[name]
    model = create_model(kind, **options).train()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    for count in (8, 9):  # another size, which is compiled anew or not
        found, expected = (one(*inputs(model, count)) for one in (compiled, model))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        found.square().mean().backward()
        expected.square().mean().backward()
    for one, other in zip(compiled.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
