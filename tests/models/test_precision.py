"""Half precisions, as GPUs train in: mixed by autocast, and throughout; finite, and near to float32."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lambda_seq import create_model

SMALL = {"dim": 16, "depth": 2, "heads": 2, "dim_key": 4}
NETWORKS = {
    "encoder": ("lambda_encoder", {**SMALL, "scope": 7, "num_classes": 4}),
    "encoder, convolutions and batch norms": (
        "lambda_encoder",
        {**SMALL, "scope": 7, "num_classes": 4, "norm": "batch", "strides": [2]},
    ),
    "encoder, global": ("lambda_encoder", {**SMALL, "scope": None, "max_length": 64, "num_classes": 4}),
    "encoder, l2": ("lambda_encoder", {**SMALL, "scope": 7, "key_norm": "l2", "num_classes": 4}),
    "encoder, attention pool": ("lambda_encoder", {**SMALL, "scope": 7, "pool": "attention", "num_classes": 4}),
    "language model": ("lambda_lm", {**SMALL, "scope": 7}),
    "language model, exponential": ("lambda_lm", {**SMALL, "scope": None, "position": "exponential"}),
    "language model, multi-scale": ("lambda_lm", {**SMALL, "scope": None, "position": "multiscale"}),
    "pictures": ("lambda_resnet_tiny", {"width": 8, "heads": 2, "scope": 3}),
}
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
NEAR = {"bfloat16": 0.15, "float16": 0.03}  # relative to the greatest logit, through some layers


def batch(model, dtype=torch.float32):
    if model.input_kind == "image":
        return (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype),)
    tokens = torch.randint(1, 257, (3, 40), generator=torch.Generator().manual_seed(0))
    return tokens, torch.arange(40) < torch.tensor([[40], [31], [7]])


def loss_of(model, logits):
    real = logits.float() if logits.ndim == 2 else logits.float()[:, :7]  # real in all rows
    target = torch.zeros(real.shape[:-1], dtype=torch.long)
    return real, F.cross_entropy(real.flatten(0, -2), target.flatten())


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", NETWORKS)
def test_autocast_trains_with_weights_in_float32(name, half):
    torch.manual_seed(0)
    kind, options = NETWORKS[name]
    model = create_model(kind, **options).train()
    plain = copy.deepcopy(model)
    expected, _ = loss_of(plain, copy.deepcopy(model)(*batch(model)))
    with torch.autocast("cpu", HALVES[half]):
        logits = model(*batch(model))
    found, loss = loss_of(model, logits)
    assert found.isfinite().all()
    assert (found - expected).abs().max() <= NEAR[half] * expected.abs().max()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=half == "float16")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler.scale(loss).backward()
    for name_, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32, name_
        assert parameter.grad.isfinite().all(), name_
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == (2.0**10 if half == "float16" else 1)  # no step was skipped
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    assert sum(not torch.equal(one, other) for one, other in pairs) > 5
    assert all(buffer.dtype in (torch.float32, torch.int64) for buffer in model.buffers())


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", NETWORKS)
def test_throughout_in_half_precision(name, half):
    torch.manual_seed(0)
    kind, options = NETWORKS[name]
    model = create_model(kind, **options).train()
    expected, _ = loss_of(model, model(*batch(model)))
    low = copy.deepcopy(model).to(HALVES[half])
    logits = low(*batch(low, HALVES[half]))
    assert logits.dtype == HALVES[half]
    found, loss = loss_of(low, logits)
    assert (found - expected).abs().max() <= 2 * NEAR[half] * expected.abs().max()
    loss.backward()
    for name_, parameter in low.named_parameters():
        assert parameter.grad.dtype == HALVES[half], name_
        assert parameter.grad.isfinite().all(), name_
