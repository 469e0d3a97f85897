"""Commands with a recipe: what is given wins, choices are options like others, and a run that goes on keeps its own."""

from pathlib import Path

import pytest
import torch
import yaml
from commands import run as run_alone
from small_audio import clip_folder
from small_data import QUIET, TINY_ENCODER, TINY_RESNET, texts, write_jsonl

from lambda_seq.tasks.callbacks.resuming import RECORD
from lambda_seq.tasks.data.text.data import TextData
from lambda_seq.tasks.recipes import following

TEXTS = ("--config", "tasks/configs/text_classification.yaml", "--data.tokenizer=bytes", *QUIET, "--output_dir=run")
TINY = (*TINY_ENCODER[:1], *TINY_ENCODER[2:])  # the depth is left to the recipe
SHORT = ("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.num_sanity_val_steps=0")
LAST = Path("run/checkpoints/last.ckpt")


def said(result) -> list[str]:
    """What the recipe has said, and its choices as {option: value}."""
    lines = result.err.splitlines()
    return [line for line in lines if line.startswith("recipe ")]


def choices(result) -> dict[str, str]:
    lines = (line.strip().partition(": ")[0] for line in result.err.splitlines() if line.startswith("  "))
    return {option: value for option, _, value in (line.partition(" ") for line in lines) if "." in option}


def configuration(printed: str) -> dict:
    return yaml.safe_load(printed)


def options_of(file: Path = LAST) -> dict:
    return torch.load(file, weights_only=True)[RECORD]["options"]


def test_what_is_given_wins_and_the_rest_is_chosen(cli, stories):
    """On the command line, in a configuration of one's own, and as null."""
    Path("mine.yaml").write_text("data:\n  class_path: TextData\n  init_args:\n    batch_size: 6\n")
    result = cli(
        *("fit", *TEXTS[:3], "--config=mine.yaml", "--data.path", stories, "--model.options.dim=24"),
        *("--trainer.max_epochs=null", "--model.optimizer=torch.optim.SGD", "--print_config"),
    )
    found = configuration(result.out)
    assert found["data"]["init_args"]["batch_size"] == 6
    assert found["trainer"]["max_epochs"] is None
    model = found["model"]["init_args"]
    assert model["options"]["dim"] == 24
    assert model["optimizer"]["init_args"]["lr"] == 0.001  # torch's own: recipes choose those of AdamW
    assert model["options"]["strides"] == [2, 2]
    assert model["label_smoothing"] == 0.1
    assert found["data"]["init_args"]["max_length"] == 128
    assert said(result) == ["recipe texts: 32 training texts, median 44 bytes, 95 % up to 77, longest 77, 2 classes"]
    assert choices(result)["model.options.strides"] == "[2, 2]"
    assert not {"data.batch_size", "model.options.dim", "trainer.max_epochs", "model.optimizer.lr"} & set(
        choices(result)
    )

    Path("all.yaml").write_text(result.out)  # in which everything is given
    again = cli("fit", "--config=all.yaml", "--print_config")
    assert choices(again) == {}
    assert configuration(again.out) == found


def test_without_a_recipe_nothing_is_chosen(cli, stories):
    result = cli("fit", *TEXTS, "--recipe=null", "--data.path", stories, "--print_config")
    assert not said(result)
    assert configuration(result.out)["model"]["init_args"]["options"] is None


def test_a_configuration_is_printed_though_its_data_are_not_there(cli):
    result = cli("fit", *TEXTS, "--data.path=nowhere/at/all", "--print_config")
    assert "recipe texts: its choices are left out: path='nowhere/at/all'" in result.err
    assert configuration(result.out)["model"]["init_args"]["options"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--recipe=nothing",), "recipe='nothing': the recipes are audio, pictures, series, texts"),
        (("--recipe=audio",), "recipe='audio' is for AudioData, and data is TextData"),
        (("--data.path=nowhere/at/all",), "path='nowhere/at/all': no such file or folder"),
        (("--data.label_column=kind",), "label_column='kind': there is no such column"),
        (("--model.network=lambda_encodr",), "lambda_encodr"),
        (("--trainer.callbacks+=BatchSizeFinder",), "BatchSizeFinder changes batches"),
    ],
)
def test_errors_are_those_of_what_is_wrong(cli, stories, options, words):
    result = cli("fit", *TEXTS, "--data.path", stories, *options, code=1)
    assert words in result.err
    assert not said(result)
    assert result.err.count("error: ") == 1


def test_the_data_are_read_once(cli, stories, monkeypatch):
    """And the choices are kept in the saved configuration and in the checkpoint."""
    read: list[str] = []
    tables = TextData.load_tables
    monkeypatch.setattr(TextData, "load_tables", lambda self, *given: (read.append(given[0]), tables(self, *given))[1])
    result = cli("fit", *TEXTS, *TINY, *SHORT, "--data.path", stories, "--trainer.max_epochs=1", "--export=false")
    assert read == [str(stories)]
    assert len(said(result)) == 1
    kept = configuration(next(Path("run").glob("tensorboard/*/config.yaml")).read_text())
    assert kept["recipe"] == "texts"
    assert kept["data"]["init_args"]["max_length"] == options_of()["data.max_length"] == 128
    assert kept["model"]["init_args"]["options"]["depth"] == options_of()["model.options.depth"] == 1


def test_a_run_goes_on_and_is_tested_as_it_began(cli, stories):
    """Though rows were added, for which the recipe would choose otherwise; what is given still wins."""
    command = (*TEXTS, *TINY, "--data.path", stories, "--trainer.limit_val_batches=1")
    cli("fit", *command, "--trainer.max_steps=2", "--test_after_fit=false", "--export=false")
    began = options_of()
    assert began["trainer.max_epochs"] == 80
    write_jsonl(stories / "train.jsonl", [*texts(32), *({"text": "cat " * 900, "label": "feline"} for _ in range(400))])
    assert choices(cli("fit", *command, "--print_config"))["data.max_length"] == "3648"

    more = cli(
        *("fit", *command, "--ckpt_path=last", "--trainer.max_steps=3", "--model.label_smoothing=0"),
        *("--test_after_fit=false", "--export=false"),
    )
    assert said(more) == [f"recipe texts: its choices are those of {LAST}"]
    changes = [line.split(":")[1].strip() for line in more.err.splitlines() if line.startswith("resuming: ")]
    assert changes == [
        *("trainer.max_steps was 2, now 3", "model.label_smoothing was 0.1, now 0.0"),
        "number of training rows was 32, now 432",
    ]
    assert options_of() == began | {"trainer.max_steps": 3, "model.label_smoothing": 0.0, "ckpt_path": str(LAST)}
    for subcommand in ("validate", "test", "predict"):
        result = cli(subcommand, *command)
        assert "its choices are those of run/checkpoints/" in said(result)[0]


def test_a_run_of_before_recipes_is_tested_by_its_own_options(cli, stories):
    plain = ("--recipe=null", "--trainer.max_epochs=1", "--test_after_fit=false", "--export=false")
    cli("fit", *TEXTS, *TINY_ENCODER, *SHORT, "--data.path", stories, *plain)
    assert "test/accuracy" in cli("test", *TEXTS, "--data.path", stories).out  # whose network was given then


def test_weights_to_start_from_say_what_the_network_is(cli, stories):
    small = ("--model.options.dim=8", "--model.options.depth=1", "--model.options.strides=[4]")
    first = ("fit", *TEXTS, *SHORT, "--data.path", stories, "--trainer.max_epochs=1", "--test_after_fit=false")
    cli(*first, *small, "--model=MaskedPretraining", "--export=false")
    start = "--model.init_from=run/checkpoints/best.ckpt"
    result = cli(*first, start, "--output_dir=fine", "--export=false")
    chosen = choices(result)
    assert [chosen[f"model.options.{name}"] for name in ("dim", "depth", "strides")] == ["8", "1", "[4]"]
    assert "model.options.dim 8: as in run/checkpoints/best.ckpt" in result.err
    assert chosen["model.options.dropout"] == "0.3"  # changes no weight


def test_a_network_of_another_name_keeps_its_sizes(cli, stories):
    command = ("fit", *TEXTS, "--data.path", stories, "--model.network=lambda_encoder_tiny", "--print_config")
    found = configuration(cli(*command).out)
    assert found["model"]["init_args"]["options"] == {"stem": "tokens", "strides": [2, 2], "token_dropout": 0.2}


@pytest.mark.parametrize(
    ("config", "data", "options", "words"),
    [
        ("image_classification", "pictures", TINY_RESNET, "24 training pictures, 8 × 8 pixels, 2 classes"),
        ("audio_classification", "clips", TINY_ENCODER, "12 training clips at 4,000 Hz"),
    ],
)
def test_pictures_and_clips(cli, pictures, config, data, options, words):
    clip_folder(Path("clips"), {"train": 6, "validation": 2, "test": 2})
    command = ("--config", f"tasks/configs/{config}.yaml", *QUIET, "--data.path", data, "--output_dir=run")
    result = cli("fit", *command, *options, *SHORT, "--trainer.max_epochs=1", "--test_after_fit=false")
    assert words in said(result)[0]
    assert "test/accuracy" in cli("test", *command).out


@pytest.mark.slow
def test_processes_choose_alike_and_one_of_them_says_so(stories):
    command = ("fit", *TEXTS, *TINY, *SHORT, "--data.path", stories, "--trainer.max_epochs=1")
    printed = run_alone(*command, "--trainer.devices=2", "--trainer.accelerator=cpu", "--test_after_fit=false")
    assert printed.count("recipe texts: 32 training texts") == 1
    assert printed.count("model.options.depth 1:") == 1
    assert options_of()["data.max_length"] == 128


def test_a_recipe_is_found_without_parsing(tmp_path):
    (tmp_path / "with.yaml").write_text("recipe: texts\n")
    (tmp_path / "without.yaml").write_text("seed_everything: 1\n")
    with_it, without = str(tmp_path / "with.yaml"), str(tmp_path / "without.yaml")
    for words, found in (
        (["fit", "--config", with_it], True),
        (["fit", f"--config={with_it}", "-c", without], True),
        (["fit", "--config", with_it, "--recipe", "null"], False),
        (["fit", "--config", without, "--recipe=audio"], True),
        (["fit", "--config", without, "--data.path", "recipe"], False),
        (["fit", "--config"], False),
    ):
        assert following._names_recipe(words) == found, words
