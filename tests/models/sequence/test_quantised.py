"""Quantised and fused networks: they run, stream and generate as those that they were made of."""

import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer1d, create_model
from lambda_seq.models import state_bytes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def quantised(model):
    from torch.ao.quantization import quantize_dynamic

    found = quantize_dynamic(model.eval(), {nn.Linear}, dtype=torch.qint8)
    assert not any(type(module) is nn.Linear for module in found.modules())  # which it finds by their exact class
    return found


@pytest.mark.parametrize(
    "options",
    [{"scope": 5}, {"scope": None, "position": "exponential"}, {"position": False, "norm": "none"}],
    ids=str,
)
def test_a_layer_steps(options):
    layer = LambdaLayer1d(32, causal=True, **options).eval()
    found, x = quantised(layer), torch.randn(2, 9, 32)
    state, outputs = found.init_state(2), []
    for place in range(9):
        output, state = found.step(x[:, place], state)
        outputs.append(output)
    assert (torch.stack(outputs, 1) - layer(x)).abs().max() < 0.1 * layer(x).abs().max()
    assert state_bytes(state) == state_bytes(layer.step(x, layer.init_state(2))[1])


@pytest.mark.parametrize("tie", [True, False])
def test_a_language_model_generates(tie):
    model = create_model("lambda_lm_tiny", tie=tie).eval()
    found, prompt = quantised(model), torch.randint(1, 257, (2, 30))
    assert found.generate(prompt, 5, seed=0, prefill=8).shape == (2, 5)
    logits, state = found.step(prompt[:, :29], found.init_state(2))
    logits, _ = found.step(prompt[:, 29], state)
    assert (logits - model(prompt)[:, 29]).abs().max() < 0.1 * model(prompt).abs().max()


@pytest.mark.parametrize("pool", ["mean", "attention"])
@pytest.mark.parametrize("options", [{"stem": "waveform"}, {"stem": "features", "strides": (2,)}, {}], ids=str)
def test_an_encoder_steps(options, pool):
    model = create_model("lambda_encoder_tiny", causal=True, pool=pool, **options).eval()
    x = torch.randint(257, (2, 40)) if not options else torch.randn(2, 40, 1)
    found = quantised(model)
    _, state = found.step(x[:, :17], found.init_state(2))
    logits, _ = found.step(x[:, 17:], state)
    assert (logits - model(x)).abs().max() < 0.1 * model(x).abs().max() + 0.05


def test_half_precision_keeps_its_states():
    model = create_model("lambda_lm_tiny").eval().bfloat16()
    _, state = model.step(torch.randint(1, 257, (2, 9)), model.init_state(2))
    assert state.blocks[0].values.dtype == model.init_state(2).blocks[0].values.dtype == torch.bfloat16


def test_convolutions_fuse_with_their_norms():
    from torch.ao.quantization import fuse_modules

    model, x = create_model("lambda_resnet_tiny", zero_init_last=False).eval(), torch.randn(2, 3, 8, 8)
    parts = [["stem.0.0", "stem.0.1", "stem.0.2"]]
    parts += [[f"stages.{stage}.0.conv{at}", f"stages.{stage}.0.norm{at}"] for stage in (0, 1) for at in (1, 3)]
    fused = fuse_modules(model, parts)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)
    assert isinstance(fused.stages[0][0].norm1, nn.Identity)
