"""Options that help networks to learn, from a configuration to the network and its optimizer."""

from pathlib import Path

import torch
from small_data import QUIET, texts, write_jsonl

CONFIG = """
data: {class_path: TextData, init_args: {batch_size: 4, max_length: 64}}
model:
  class_path: Classification
  init_args:
    network: lambda_encoder
    position_lr: 0.1
    position_decay: 0.01
    optimizer: {class_path: AdamW, init_args: {lr: 0.002}}
    options:
      stem: tokens
      dim: 8
      depth: 3
      heads: 2
      dim_key: 3
      scope: [5, null, null]
      position: [table, multiscale, exponential]
      query_bias: 1.0
      ff: gated
      ff_ratio: 1.5
      layer_scale: 0.1
      mixing_dropout: 0.1
      position_dropout: 0.1
trainer: {max_epochs: 1, max_steps: 2}
"""


def test_one_network_mixes_positions_and_has_all_options(cli):
    Path("learn.yaml").write_text(CONFIG)
    write_jsonl(Path("stories/train.jsonl"), texts(16))
    command = ("--config", "learn.yaml", "--data.path=stories", *QUIET, "--test_after_fit=false", "--export=false")
    cli("fit", *command, "--output_dir=run", "--trainer.accelerator=cpu")
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    names = {name.removeprefix("network.blocks.") for name in last["state_dict"] if ".position." in name}
    place = "mixing.layer.position"
    assert {f"0.{place}.weight", f"1.{place}.weights.0", f"2.{place}.raw_rate"} <= names
    assert last["state_dict"]["network.blocks.1.scale2.weight"].shape == (8,)
    assert last["state_dict"]["network.blocks.1.feed_forward.inner.weight"].shape == (24, 8)
    groups = last["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.002, 0.002, 0.0002]
    assert groups[2]["weight_decay"] == 0.01
    assert len(groups[2]["params"]) == sum("scale" not in name for name in names)  # a buffer
    options = last["hyper_parameters"]["options"]
    assert options["position"] == ["table", "multiscale", "exponential"]
    assert options["query_bias"] == 1.0
