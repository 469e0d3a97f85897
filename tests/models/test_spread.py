"""Weights that FSDP2 has spread over processes: steps, generation and resets as with whole ones."""

import copy
import warnings

import pytest
import torch
from processes import run_together
from torch import nn

from lambda_seq import LambdaLayer1d, create_model, param_groups

PROCESSES = 2
MODELS = {
    "local": {},
    "exponential": {"position": "exponential", "scope": None},
    "multiscale": {"position": "multiscale", "scope": None},
}


def tokens():
    return torch.randint(1, 257, (2, 30), generator=torch.Generator().manual_seed(0))


def spread(model, mesh, **options):
    from torch.distributed.fsdp import fully_shard

    for block in getattr(model, "blocks", ()):
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def check_layer(mesh):
    for options in ({"scope": 5}, {"scope": None, "position": "exponential"}):
        layer = LambdaLayer1d(8, heads=2, causal=True, **options)
        found, x = spread(copy.deepcopy(layer), mesh), torch.randn(2, 12, 8)
        state, outputs = found.init_state(2), []
        for piece in x.split([1, 4, 7], 1):
            output, state = found.step(piece, state)
            outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, 1), layer(x), rtol=1e-4, atol=1e-5)


def check_language_models(mesh):
    prompt = tokens()
    for options in MODELS.values():
        model = create_model("lambda_lm_tiny", **options).eval()
        found = spread(copy.deepcopy(model), mesh)
        expected = model.generate(prompt, 6, seed=0, prefill=8)
        assert torch.equal(found.generate(prompt, 6, seed=0, prefill=8), expected)
        found.train()(prompt).square().mean().backward()  # training goes on after it
        assert all(parameter.grad is not None for parameter in found.parameters())
        assert torch.equal(found.eval().generate(prompt, 6, seed=0, prefill=8), expected)
        logits, state = found.step(prompt[:, :5], found.init_state(2))
        logits, state = found.step(prompt[:, 5], state)
        torch.testing.assert_close(logits, model(prompt)[:, 5], rtol=1e-4, atol=1e-4)
        decaying, free = ([parameter.numel() for parameter in group["params"]] for group in param_groups(found))
        wanted = ([parameter.numel() for parameter in group["params"]] for group in param_groups(model))
        assert sorted(map(sorted, (decaying, free))) == sorted(map(sorted, wanted))


def check_encoder(mesh):
    model = create_model("lambda_encoder_tiny", causal=True, pool="attention", strides=(2,)).eval()
    found, x = spread(copy.deepcopy(model), mesh), tokens()
    _, state = found.step(x[:, :7], found.init_state(2))
    logits, _ = found.step(x[:, 7:], state)
    torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-4)


def check_shared_blocks(mesh):
    from torch.distributed.fsdp import fully_shard

    model = create_model("lambda_lm_tiny", share_blocks=True, depth=3, layer_scale=0.5, query_bias=1.0)
    found, prompt = copy.deepcopy(model), tokens()
    fully_shard(found.blocks.shared, mesh=mesh)  # in front of the blocks, of which it is none's
    spread(found, mesh)
    for _ in range(2):
        for one in (model, found):
            one.train().zero_grad()
            one(prompt).square().mean().backward()
        for name, parameter in found.named_parameters():
            expected = dict(model.named_parameters())[name].grad
            torch.testing.assert_close(parameter.grad.full_tensor(), expected, rtol=1e-3, atol=1e-6)
    expected = model.eval().generate(prompt, 6, seed=0, prefill=8)
    assert torch.equal(found.eval().generate(prompt, 6, seed=0, prefill=8), expected)


def check_mixed_precision(mesh):
    from torch.distributed.fsdp import MixedPrecisionPolicy

    found = spread(create_model("lambda_lm_tiny").eval(), mesh, mp_policy=MixedPrecisionPolicy(torch.bfloat16))
    logits, state = found.step(tokens(), found.init_state(2))
    assert logits.dtype == torch.bfloat16
    assert state.blocks[0].content.sums.dtype == torch.float32  # a sum over the whole context


def check_reset(mesh):
    with torch.device("meta"):
        found = create_model("lambda_lm_tiny", position="exponential", scope=None)
    spread(found, mesh).to_empty(device="cpu")
    for parameter in found.parameters():
        nn.init.constant_(parameter, float("nan"))
    for module in found.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    fresh = create_model("lambda_lm_tiny", position="exponential", scope=None)
    wanted = dict(fresh.named_parameters())
    for name, parameter in found.named_parameters():
        whole = parameter.full_tensor()
        assert whole.isfinite().all(), name
        if wanted[name].numel() > 500:
            assert (whole.std() / wanted[name].std()).log().abs() < 0.2, name


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = create_model("lambda_lm_tiny").eval()


def check_error(mesh):
    from torch.distributed.fsdp import fully_shard

    outer = fully_shard(Outer(), mesh=mesh)
    with pytest.raises(ValueError, match=r"the weights of this LambdaLM are spread .*: wrap this one by fully_shard"):
        outer.inner.generate(tokens(), 3)
    outer.unshard()
    assert outer.inner.generate(tokens(), 3).shape == (2, 3)


def worker():
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (PROCESSES,))
    for message in ("FSDP2-wrapped module .* returned a view", "DTensor random operators may not have"):
        warnings.filterwarnings("ignore", message)  # no view is changed in place; chance is not compared
    checks = (check_layer, check_language_models, check_encoder, check_shared_blocks, check_mixed_precision)
    for check in (*checks, check_reset, check_error):
        torch.manual_seed(0)
        check(mesh)


@pytest.mark.slow
def test_steps_generation_and_resets():
    run_together(PROCESSES, worker)
