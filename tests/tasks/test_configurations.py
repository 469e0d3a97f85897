"""Each configuration that is shipped begins to train on two processes, as the command line starts them."""

from pathlib import Path

import pytest
import torch
from commands import run
from paths import ROOT
from small_audio import clip_folder
from small_data import QUIET, TINY_ENCODER, TINY_RESNET, image_folder, texts, write_jsonl

CONFIGS = sorted((ROOT / "tasks" / "configs").glob("*.yaml"))
PROCESSES = ("--trainer.devices=2", "--trainer.accelerator=cpu", "--data.batch_size=2", "--data.num_workers=0")
FEW = (
    *(f"--trainer.limit_{stage}_batches=2" for stage in ("train", "val", "test")),
    *("--trainer.max_epochs=1", "--trainer.num_sanity_val_steps=0", "--trainer.accumulate_grad_batches=1"),
)
ONE_BLOCK = ("--model.options.dim=8", "--model.options.depth=1", "--model.options.heads=2")


def pictures() -> tuple[str, ...]:
    image_folder(Path("pictures"), {"train": 8, "validation": 2, "test": 2}, size=(16, 16))
    return ("--data.path=pictures",)


def stories() -> tuple[str, ...]:
    for split, count in {"train": 16, "validation": 4, "test": 4}.items():
        write_jsonl(Path("stories") / f"{split}.jsonl", texts(count))
    return ("--data.path=stories",)


def book() -> tuple[str, ...]:
    Path("book.txt").write_text("To be, or not to be, that is the question. " * 100)
    return ("--data.path=book.txt", "--data.length=64")


def clips() -> tuple[str, ...]:
    clip_folder(Path("clips"), {"train": 8, "validation": 2, "test": 2})
    return ("--data.path=clips",)


def genes() -> tuple[str, ...]:
    Path("genes.csv").write_text("sequence,label\n" + "ACGTTG,a\nCCGTNA,b\n" * 12)
    return ("--data.path=genes.csv", "--data.test_fraction=0.2")


def scenes() -> tuple[str, ...]:
    pytest.importorskip("torchvision", exc_type=ImportError)
    heads = ("--model.channels=8", "--model.head_width=16", "--model.samples=8", "--model.options.width=8")
    return ("--data.path=digits:scenes", "--data.scenes=[8,2,2]", "--data.size=64", "--data.max_size=64", *heads)


FOUR_STAGES = ("--model.options.blocks=[1,1,1,1]", "--model.options.width=8")
IMAGENET = ("--data.image_size=32", "--data.read_size=40", *FOUR_STAGES)
SMALL = {  # what makes data and networks of a configuration small
    "associative_recall": lambda: (*ONE_BLOCK, "--data.train_size=16"),
    "audio_classification": lambda: (*clips(), *ONE_BLOCK),
    "biosequences": lambda: (*genes(), *TINY_ENCODER),
    "cifar10": lambda: (*pictures(), *TINY_RESNET),
    "detection": scenes,
    "detection_coco": lambda: (*scenes(), "--model.options.blocks=[1,1,1,1]", "--model.options.placement=CCLL"),
    "detection_fine_tuning": lambda: (*scenes(), "--model.options.blocks=[1,1,1,1]", "--model.options.placement=CCCL"),
    "digits": lambda: TINY_RESNET,
    "digits_sequence": lambda: TINY_ENCODER,
    "fashion_mnist": lambda: (*pictures(), *TINY_RESNET),
    "fine_tuning": lambda: (*pictures(), *TINY_RESNET),
    "image_classification": lambda: (*pictures(), *TINY_RESNET),
    "imagenet_350": lambda: (*pictures(), *IMAGENET),
    "imagenet_90": lambda: (*pictures(), *IMAGENET),
    "language_modelling": lambda: (*book(), *TINY_ENCODER),
    "listops": lambda: (
        *("--data.path=trees", "--data.shortest=20", "--data.longest=60", "--data.train_size=64"),
        *("--data.validation_size=4", "--data.test_size=4", *ONE_BLOCK),
    ),
    "long_documents": lambda: (*stories(), *TINY_ENCODER),
    "pixels": lambda: (*pictures(), *ONE_BLOCK),
    "pretraining": lambda: TINY_ENCODER,
    "series_classification": lambda: ONE_BLOCK,
    "shakespeare": lambda: (*book(), "--data.stride=32", *TINY_ENCODER),
    "speech_commands": lambda: (*clips(), *ONE_BLOCK, "--data.sampling_rate=4000"),
    "spoken_digits": lambda: (*clips(), *ONE_BLOCK, "--data.sampling_rate=4000"),
    "tagging": lambda: (*TINY_ENCODER, "--data.max_length=64"),
    "text_classification": lambda: (*stories(), *TINY_ENCODER),
}


def test_no_configuration_is_left_out():
    assert sorted(SMALL) == [path.stem for path in CONFIGS]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_two_processes_begin_to_train(path, strategy):
    averaged = "ema_decay" in path.read_text()
    options = ("--ema_decay=null",) if averaged and strategy == "fsdp2" else ()
    printed = run(
        *("fit", "--config", path, *QUIET, *PROCESSES, *FEW, *SMALL[path.stem](), "--output_dir=run"),
        *(f"--trainer.strategy={strategy}", *options),
    )
    assert "Starting with 2 processes" in printed
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert ("averaging_state" in checkpoint) == (averaged and strategy == "ddp")
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
