"""timm's network that mixes lambda layers with other attention, which is not here: the errors name it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lambda_seq import create_model
from lambda_seq.interop import timm


def network():
    return create_model("lambda_resnet26t", width=8, num_classes=5).eval()


MIXES = r"'lamhalobotnet50ts_256' mixes lambda layers with halo and bottleneck attention.*expected .*'lambda_resnet26t'"


@pytest.mark.parametrize(
    "name", ["lamhalobotnet50ts_256", "lamhalobotnet50ts_256.a1h_in1k", "timm/lamhalobotnet50ts_256.a1h_in1k"]
)
def test_a_network_of_mixed_attention_by_name(name):
    with pytest.raises(ValueError, match=MIXES):
        timm.load(name)


@pytest.mark.parametrize("kind", ["halo", "bottleneck"])
@pytest.mark.parametrize("given", [False, True])
def test_a_network_of_mixed_attention_by_its_weights(kind, given, tmp_path):
    weights = timm.export_state_dict(network())
    for name in [name for name in weights if ".self_attn." in name]:
        block = name.partition(".self_attn.")[0]
        del weights[name]
        names = {"halo": ("q.weight", "kv.weight"), "bottleneck": ("qkv.weight",)}[kind]
        weights |= {f"{block}.self_attn.{part}": torch.zeros(8, 8, 1, 1) for part in names}
        weights |= {f"{block}.self_attn.pos_embed.{part}": torch.zeros(9, 4) for part in ("height_rel", "width_rel")}
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=MIXES):
        timm.load(tmp_path / "weights.safetensors", network() if given else None)
    with pytest.raises(ValueError, match=MIXES):
        timm.convert_state_dict(weights)


def test_a_network_of_mixed_attention_by_its_config(tmp_path):
    save_file(timm.export_state_dict(network()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "lamhalobotnet50ts_256"}))
    with pytest.raises(ValueError, match=MIXES):
        timm.load(tmp_path)
