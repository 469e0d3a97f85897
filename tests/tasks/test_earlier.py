"""Checkpoints and saved folders of version 0.1.0 from before heads had names: they load, answer the same, and go on.

Each of `earlier/` is a small network after two steps of training: NAME.ckpt, of a task; NAME.pt, what it was given in
evaluation mode and what came out, of token ids the first 8; and of tasks that make models NAME/, what `save_pretrained`
wrote. "pretraining" has attention pooling and strides, and so weights that nothing was trained by.
"""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lambda_seq import from_pretrained
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.language_modelling import LanguageModelling
from lambda_seq.tasks.pretraining import MaskedPretraining

EARLIER = Path(__file__).parent / "earlier"
TASKS = {
    "classification": Classification,
    "pictures": Classification,
    "pretraining": MaskedPretraining,
    "audio": MaskedPretraining,
    "language": LanguageModelling,
}


def restored(name):
    """The task of a checkpoint, what its network was given, and what came out."""
    task = TASKS[name].load_from_checkpoint(EARLIER / f"{name}.ckpt", map_location="cpu", weights_only=True)
    stored = torch.load(EARLIER / f"{name}.pt", weights_only=True)
    return task.eval(), stored["given"], stored["expected"]


@pytest.mark.parametrize("name", TASKS)
@torch.no_grad()
def test_a_checkpoint_answers_the_same(name):
    task, given, expected = restored(name)
    if name == "language":
        found = task.network(given["x"], given["mask"], given["documents"])
    else:
        found = task(*given) if isinstance(given, tuple) else task(given)
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected)  # but for the order of sums


@pytest.mark.parametrize("name", ["classification", "pictures", "language"])
@torch.no_grad()
def test_a_saved_folder_answers_the_same(name):
    task, given, _ = restored(name)
    model = from_pretrained(EARLIER / name)
    x, mask = task.inputs(given)
    assert torch.equal(
        model(x, mask) if name != "pictures" else model(x), task.network(*[x, mask][: 2 - (mask is None)])
    )
    assert model.objective == task.network.objective
    assert (model.labels or []) == getattr(task, "labels", [])


@pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec:FutureWarning", "ignore:.*does not have many workers"
)
@pytest.mark.parametrize("name", ["classification", "pictures", "pretraining", "audio"])
def test_a_training_goes_on(name):
    task, given, _ = restored(name)
    if isinstance(given, tuple):
        given = {"x": given[0], "mask": given[1]}
    batch = given | {"label": torch.tensor([0, 1, 1, 0]), "id": list("abcd")}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_steps=3, max_epochs=5, accelerator="cpu", num_sanity_val_steps=0, **quiet)
    loader = DataLoader([batch], batch_size=None)
    trainer.fit(task.train(), loader, loader, ckpt_path=EARLIER / f"{name}.ckpt", weights_only=True)
    assert trainer.global_step == 3
    assert trainer.optimizers[0].state[task.network.head.weight]["step"] == 3  # its moments went on, too


def test_weights_of_an_earlier_pretraining_start_a_classification():
    facts = torch.load(EARLIER / "pretraining.ckpt", weights_only=True)["hyper_parameters"]["facts"]
    options = {"dim": 8, "depth": 1, "heads": 2, "dim_key": 4, "scope": 5, "strides": [2]}
    task = Classification("lambda_encoder", options, init_from=str(EARLIER / "pretraining.ckpt"), facts=facts)
    task._trainer = type("Fitting", (), {"ckpt_path": None})()
    task.on_fit_start()
    source = torch.load(EARLIER / "pretraining.ckpt", weights_only=True)["state_dict"]
    for name, weight in task.network.state_dict().items():
        if not name.startswith(("head.", "pool.")):
            assert torch.equal(weight, source[f"network.{name}"]), name
