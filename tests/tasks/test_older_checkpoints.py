"""Checkpoints of when options of networks had other names."""

import pytest
import torch

from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.networks import network_of

FACTS = {"input": "tokens", "options": {"vocab_size": 20, "num_classes": 3}, "labels": ["a", "b", "c"]}
SMALL = {"dim": 8, "depth": 1, "heads": 2, "scope": 3}


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"lambda_norm": "rms", "norm": "batch"}, {"norm": "rms", "block_norm": "batch"}),
        ({"norm": "rms"}, {"block_norm": "rms"}),
        ({"position_init": "paper"}, {"init": "paper"}),
    ],
)
def test_a_checkpoint_with_names_of_then_loads(tmp_path, then, now):
    task = Classification("lambda_encoder", SMALL | now, facts=FACTS)
    hparams = {**task.hparams, "options": SMALL | then}
    checkpoint = {"state_dict": task.state_dict(), "hyper_parameters": hparams, "pytorch-lightning_version": "2.5.0"}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    loaded = Classification.load_from_checkpoint(tmp_path / "last.ckpt", map_location="cpu")
    x = torch.randint(20, (2, 9))
    expected = task.eval().network(x)
    assert torch.equal(loaded.eval().network(x), expected)
    assert loaded.hparams["options"].items() >= now.items()
    network = network_of(checkpoint)
    network.load_state_dict(task.network.state_dict())
    assert torch.equal(network.eval()(x), expected)
