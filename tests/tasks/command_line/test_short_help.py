"""Help for a configuration: options of data and model first, with the values that they have there."""

from pathlib import Path

import pytest

from lambda_seq.tasks.command_line.short_help import BY_RECIPE, asked, purposes_of, shorten

HELPS = ("-h", "--help")


@pytest.mark.parametrize("option", HELPS)
def test_data_and_model_come_first(cli, option):
    lines = cli("fit", "--config", "text_classification", option).out.splitlines()
    places = [
        next(place for place, line in enumerate(lines) if word in line) for word in ("Data:", "Model:", "Training;")
    ]
    assert places == sorted(places)
    assert places[0] < 4
    assert len(lines) < 50
    assert all(len(line) <= 100 for line in lines)
    for command in ("--data.help TextData", "--model.help Classification", "--help", "--print_config"):
        assert any(command in line for line in lines)


def test_values_are_those_of_the_configuration_and_the_command_line(cli):
    shown = cli("fit", "--config=digits", "--data.batch_size=5", "--help").out
    assert value_in(shown, "--data.batch_size") == "5"
    assert value_in(shown, "--trainer.max_epochs") == "16"
    assert "width 32" in shown
    assert "lr 0.003" in shown
    assert BY_RECIPE not in shown


def test_what_a_recipe_chooses_is_said(cli):
    shown = cli("fit", "--config", "image_classification", "--data.image_size=[32,32]", "--help").out
    assert value_in(shown, "--data.batch_size") == BY_RECIPE
    assert value_in(shown, "--data.image_size") == "[32,"
    assert "blocks (recipe)" in " ".join(shown.split())


def test_of_a_configuration_of_ones_own(cli):
    Path("mine.yaml").write_text(
        "data:\n  class_path: CorpusData\nmodel: {class_path: LanguageModelling, init_args: {network: lambda_lm}}\n"
    )
    shown = cli("validate", "--config", "mine.yaml", "-h").out
    assert "lambda-seq validate --config mine.yaml" in shown
    assert value_in(shown, "--model.network") == "lambda_lm"


def test_without_a_configuration_all_options_are_shown(cli):
    assert not asked(["fit", "--help"])
    assert "--trainer.profiler" in cli("fit", "--help").out


def test_a_mistake_beside_it_is_said(cli):
    assert "did you mean --data.batch_size?" in cli("fit", "--config=digits", "--data.bath_size=3", "-h", code=2).err


def test_purposes_are_first_sentences():
    found = purposes_of("lambda_seq.tasks.data.TextData")
    assert found["batch_size"] == "texts per step and device"
    assert found["num_workers"] == "processes that prepare batches"
    assert shorten("a long line", 6) == "a lon…"


def value_in(shown, option):
    return next(line for line in shown.splitlines() if line.split()[:1] == [option]).split()[1]
