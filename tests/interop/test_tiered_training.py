"""Networks of timm in the tasks: a training that starts from converted weights."""

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from lambda_seq import create_model
from lambda_seq.interop import timm
from lambda_seq.tasks.classification import Classification


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # Lightning's own use of torch
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_a_training_starts_from_timms_weights(tmp_path):
    source = create_model("lambda_resnet26t", width=8, num_classes=5, zero_init_last=False)
    save_file(timm.export_state_dict(source), tmp_path / "weights.safetensors")
    timm.load(tmp_path / "weights.safetensors", width=8).save_pretrained(tmp_path / "model")
    facts = {"labels": ["a", "b"], "input": "image", "mean": [100.0] * 3, "std": [10.0] * 3}
    facts["options"] = {"num_classes": 2, "in_channels": 3, "image_size": [40, 40]}
    task = Classification(
        "lambda_resnet26t", {"width": 8, "dropout": 0.1}, facts=facts, init_from=str(tmp_path / "model"), warmup=0
    )
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    loader = DataLoader([{"x": images, "label": torch.arange(4) % 2, "id": list("abcd")}] * 3, batch_size=None)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", enable_model_summary=False, max_epochs=1, **quiet)
    trainer.fit(task, loader, loader)
    moved = task.network.stem[0][0].weight - source.stem[0][0].weight
    assert 0 < moved.abs().max() < 0.01  # AdamW has made three steps of 0.001 at most
