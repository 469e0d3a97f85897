"""The task: sizes from the data, normalisation, metrics, steps of the schedule."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.networks import network_for

TOKENS = {
    "labels": ["a", "b", "c"],
    "input": "tokens",
    "options": {"num_classes": 3, "vocab_size": 257, "max_length": 32, "image_size": [1, 1]},
}
PIXELS = {
    "labels": ["a", "b"],
    "input": "image",
    "options": {"num_classes": 2, "in_channels": 3, "image_size": [8, 8]},
    "mean": [100.0, 50.0, 0.0],
    "std": [10.0, 20.0, 1.0],
}
ENCODER = {"dim": 8, "depth": 1, "heads": 2, "scope": 3}
RESNET = {"stem": "small", "blocks": [1], "placement": "L", "width": 8, "heads": 2, "scope": 3}


def batch(count=4, length=16):
    x = torch.randint(1, 257, (count, length))
    mask = torch.ones(count, length, dtype=torch.bool)
    mask[0, 9:] = False
    return {"x": x * mask, "mask": mask, "label": torch.arange(count) % 3, "id": list("abcd")[:count]}


def test_data_give_the_sizes_and_options_win():
    task = Classification("lambda_encoder", ENCODER, facts=TOKENS)
    assert task(batch()).shape == (4, 3)
    assert task.network.options["vocab_size"] == 257
    wider = Classification("lambda_encoder", ENCODER | {"vocab_size": 300}, facts=TOKENS)
    assert wider.network.options["vocab_size"] == 300


def test_a_row_without_real_positions_gets_a_finite_answer():
    task = Classification("lambda_encoder", ENCODER, facts=TOKENS).eval()
    empty = batch()
    empty["x"][1], empty["mask"][1] = 0, False
    logits = task(empty)
    assert logits.isfinite().all()
    assert torch.equal(logits[0], task(batch() | {"x": empty["x"], "mask": empty["mask"]})[0])


@pytest.mark.parametrize("sequence", [False, True])
def test_pixels_are_normalised_by_channel(sequence):
    facts = PIXELS | ({"input": "features"} if sequence else {})
    facts["options"] = PIXELS["options"] | ({"max_length": 64} if sequence else {})
    name, options = ("lambda_encoder", ENCODER | {"stem": "features"}) if sequence else ("lambda_resnet50", RESNET)
    task = Classification(name, options, facts=facts).eval()
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    normal = (images - torch.tensor([100.0, 50.0, 0.0])[:, None, None]) / torch.tensor([10.0, 20.0, 1.0])[:, None, None]
    if sequence:
        images, normal = images.flatten(2).transpose(1, 2), normal.flatten(2).transpose(1, 2)
    assert torch.allclose(task({"x": images}), task.network(normal))
    assert {"mean", "std"} <= task.state_dict().keys()


def test_predictions_are_probabilities():
    predicted = Classification("lambda_encoder", ENCODER, facts=TOKENS).predict_step(batch(), 0)
    assert predicted["id"] == list("abcd")
    assert torch.allclose(predicted["probabilities"].sum(-1), torch.ones(4))


def test_loss_with_label_smoothing():
    task = Classification("lambda_encoder", ENCODER, facts=TOKENS, label_smoothing=0.1).eval()
    task.log = task.log_dict = lambda *given, **options: None
    items = batch()
    expected = F.cross_entropy(task(items), items["label"], label_smoothing=0.1)
    assert torch.allclose(task.training_step(items, 0), expected)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # Lightning's own use of torch
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")  # five batches need none
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 15),
        ({"max_epochs": 3, "max_steps": 4}, 15),  # a stop, not another schedule
        ({"max_epochs": -1, "max_steps": 4}, 4),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 9),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
    ],
)
def test_the_rate_falls_to_zero_over_all_steps(options, steps, tmp_path):
    task = Classification("lambda_encoder", ENCODER, facts=TOKENS, warmup=0)
    loader = DataLoader([batch() for _ in range(5)], batch_size=None)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", enable_model_summary=False, **quiet, **options)
    trainer.fit(task, loader, loader)
    factor = trainer.lr_scheduler_configs[0].scheduler.lr_lambdas[0]
    assert factor(steps) == pytest.approx(0, abs=1e-12)
    assert factor(steps - 1) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"warmup": 2.0}, "warmup=2.0"),
        ({"final_lr": -1.0}, "final_lr=-1.0"),
        ({"network": "lambda_encodr"}, "lambda_encodr"),
        ({"facts": TOKENS | {"input": "image"}}, "choose a network for images"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Classification(**({"network": "lambda_encoder", "options": ENCODER, "facts": TOKENS} | options))


def test_without_facts_options_are_checked_and_the_network_waits_for_a_trainer():
    for options, message in (({"network": "lambda_encodr"}, "lambda_encodr"), ({"warmup": 2.0}, "warmup=2.0")):
        with pytest.raises(ValueError, match=message):
            Classification(**({"network": "lambda_encoder"} | options))
    with pytest.raises(ValueError, match="facts: what the data are must be given"):
        Classification("lambda_encoder", ENCODER).configure_model()


@pytest.mark.parametrize("word", ["null", "None"])
def test_null_on_the_command_line_is_none(word):
    facts = {"input": "tokens", "options": {"vocab_size": 9}}
    network = network_for("lambda_encoder_tiny", {"scope": word, "position": "exponential"}, facts)
    assert network.options["scope"] is None


def test_a_checkpoint_of_a_causal_encoder_from_before(tmp_path):
    # whose lambda norms were batch norms by default
    options = ENCODER | {"causal": True, "norm": "batch", "block_norm": "layer"}
    with pytest.warns(UserWarning, match="norm='batch'"):
        before = Classification("lambda_encoder", options, facts=TOKENS)
    hparams = {"network": "lambda_encoder", "options": ENCODER | {"causal": True}, "facts": TOKENS}
    checkpoint = {"state_dict": before.state_dict(), "hyper_parameters": hparams}
    torch.save(checkpoint | {"pytorch-lightning_version": "2.5.0"}, tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="the weights are of causal layers with batch norms, once their default"):
        task = Classification.load_from_checkpoint(tmp_path / "last.ckpt")
    given = batch()
    assert torch.equal(task.eval()(given), before.eval()(given))
